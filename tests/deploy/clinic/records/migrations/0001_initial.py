from django.db import migrations, models

import django_asherah.fields


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            name="Visit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("remark", django_asherah.fields.EncryptedTextField()),
            ],
        ),
    ]
