# hypercorn --config file:hypercorn_config.py clinic.asgi:application
import os

bind = f"127.0.0.1:{os.environ['PORT']}"
workers = 2
