"""What is measured. Each suite returns plain data: what goes into ``results.json``."""
