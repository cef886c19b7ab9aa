"""Each patient belongs to a clinic, and is encrypted under its key.

Patients who are there already become those of one clinic. They can't be read until they have been sealed for it:
``manage.py asherah_reencrypt --moved``.
"""

import django.db.models.deletion
import django_asherah.fields
from django.db import migrations, models


def give_clinic(apps, schema_editor):
    patients = apps.get_model('clinic', 'Patient').objects.using(schema_editor.connection.alias)
    if patients.exists():
        clinics = apps.get_model('clinic', 'Clinic').objects.using(schema_editor.connection.alias)
        patients.update(clinic=clinics.create(name='The clinic'))


class Migration(migrations.Migration):

    dependencies = [
        ('clinic', '0001_initial'),
    ]

    operations = [
        migrations.CreateModel(
            name='Clinic',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(max_length=200, unique=True)),
            ],
        ),
        migrations.AddField(
            model_name='patient',
            name='clinic',
            field=models.ForeignKey(null=True, on_delete=django.db.models.deletion.PROTECT, to='clinic.clinic'),
        ),
        migrations.RunPython(give_clinic, migrations.RunPython.noop),
        migrations.AlterField(
            model_name='patient',
            name='clinic',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to='clinic.clinic'),
        ),
        migrations.AlterField(
            model_name='patient',
            name='ssn',
            field=django_asherah.fields.EncryptedTextField(
                partition='clinic-{clinic_id}', verbose_name='social security number'
            ),
        ),
        migrations.AlterField(
            model_name='patient',
            name='record',
            field=django_asherah.fields.EncryptedJSONField(
                partition='clinic-{clinic_id}', verbose_name='medical record'
            ),
        ),
    ]
