exec celery --app clinic worker --pool gevent --concurrency 50
