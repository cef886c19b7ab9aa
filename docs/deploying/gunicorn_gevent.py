# gunicorn --config gunicorn_gevent.py clinic.wsgi
from gevent import monkey

monkey.patch_all()  # Here, before anything imports Django, psycopg or boto3.

workers = 2
worker_class = "gevent"
worker_connections = 100
