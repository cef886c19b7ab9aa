exec celery --app clinic worker --pool threads --concurrency 8
