"""Where WSGI servers find the application."""

import django
from django.core.wsgi import get_wsgi_application

django.setup()
application = get_wsgi_application()
