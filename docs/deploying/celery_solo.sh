exec celery --app clinic worker --pool solo
