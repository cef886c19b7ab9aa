"""What the performance page quotes: ``make bench``."""
