from django.db import migrations

from django_asherah.fields import EncryptedDateField, EncryptedDateTimeField, EncryptedTimeField


class Migration(migrations.Migration):
    dependencies = [("attic", "0003_fill")]
    operations = [
        migrations.AddField("box", "stored", EncryptedDateTimeField(auto_now_add=True)),
        migrations.AddField("box", "moved", EncryptedDateTimeField(auto_now=True)),
        migrations.AddField("box", "day", EncryptedDateField(auto_now_add=True)),
        migrations.AddField("box", "hour", EncryptedTimeField(auto_now=True)),
    ]
