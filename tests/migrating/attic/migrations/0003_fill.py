from django.db import migrations


def fill(apps, schema_editor):
    apps.get_model("attic", "Box").objects.using(schema_editor.connection.alias).create(name="a", secret="letters")


class Migration(migrations.Migration):
    dependencies = [("attic", "0002_secret")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
