# gunicorn --config gunicorn_gthread.py clinic.wsgi
workers = 2
threads = 8
