import os

DATABASES = {
    "default": {
        "ENGINE": "django_tenants.postgresql_backend",
        "HOST": os.environ["DATABASE_HOST"],
        "PORT": os.environ["DATABASE_PORT"],
        "NAME": os.environ["DATABASE_NAME"],
        "USER": os.environ["DATABASE_USER"],
    }
}
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
MIDDLEWARE = ["django_tenants.middleware.main.TenantMainMiddleware"]
TENANT_MODEL = "clinic.Clinic"
TENANT_DOMAIN_MODEL = "clinic.Domain"
# The key table is in the schema public, and only there: django_asherah is none of TENANT_APPS.
SHARED_APPS = ["django_tenants", "django.contrib.contenttypes", "django_asherah", "clinic"]
TENANT_APPS = ["django.contrib.contenttypes", "clinic.records"]
INSTALLED_APPS = [*SHARED_APPS, "clinic.records"]
