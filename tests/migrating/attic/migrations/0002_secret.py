from django.db import migrations

from django_asherah.fields import EncryptedTextField


class Migration(migrations.Migration):
    dependencies = [("attic", "0001_initial")]
    operations = [
        migrations.SeparateDatabaseAndState(
            [migrations.AddField("box", "secret", EncryptedTextField(default="what Box holds"))],
            [migrations.AddField("box", "secret", EncryptedTextField(default="what Box holds"))],
        ),
    ]
