"""Stands for the reader's own project in the configurations of docs/deploying."""
