# gunicorn --config gunicorn_sync.py clinic.wsgi
workers = 2
