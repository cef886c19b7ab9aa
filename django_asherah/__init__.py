"""Encrypted Django model fields over Asherah's key hierarchy."""
