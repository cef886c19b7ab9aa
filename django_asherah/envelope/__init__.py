"""The engine: Asherah's envelope encryption in plain Python, without Django and without boto3."""
