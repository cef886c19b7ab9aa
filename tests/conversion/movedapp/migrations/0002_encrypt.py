from django.db import migrations

from django_asherah.fields import EncryptedTextField
from django_asherah.operations import EncryptField


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("django_asherah", "0001_encryption_key"), ("movedapp", "0001_initial")]
    operations = [EncryptField("Thing", "secret", EncryptedTextField(max_length=200))]
