exec uvicorn clinic.asgi:application --port "$PORT" --workers 2 --lifespan off
