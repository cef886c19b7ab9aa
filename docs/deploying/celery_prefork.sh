exec celery --app clinic worker --pool prefork --concurrency 2
