"""Fuzz targets: hostile bytes for the codecs, the engine, the fields and the KMS. ``make fuzz`` runs them."""
