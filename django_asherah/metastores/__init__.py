"""Metastores: where key records are stored."""
