from django.db import migrations, models

from django_asherah.fields import EncryptedTextField


def fill(apps, schema_editor):
    apps.get_model("attic", "Box").objects.using(schema_editor.connection.alias).create(name="a", secret="letters")


class Migration(migrations.Migration):
    initial = True
    replaces = [("attic", "0001_initial"), ("attic", "0002_secret"), ("attic", "0003_fill")]
    operations = [
        migrations.CreateModel(
            "Box",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=20)),
                ("secret", EncryptedTextField(default="what Box holds")),
            ],
        ),
        migrations.RunPython(fill, migrations.RunPython.noop),
    ]
