"""Fields that are added to a model which is there already, and models that go."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from django.db import models
from django.db.migrations.state import ModelState, ProjectState
from django.test.utils import isolate_apps

from django_asherah.fields import EncryptedTextField
from tests.testapp.models import Clinic, Patient


@isolate_apps("tests.testapp")
def test_a_model_remembers_the_row_for_a_field_that_is_added_later() -> None:
    meta = type("Meta", (), {"app_label": "testapp"})
    late: Any = type("Late", (models.Model,), {"__module__": __name__, "Meta": meta, "tenant": models.IntegerField()})
    late.add_to_class("secret", EncryptedTextField(partition="late-{tenant}"))
    row = late(tenant=7)
    assert vars(row._state)["partition_columns"] == {"tenant": 7}


def test_a_historical_model_goes_with_its_state() -> None:
    state = ProjectState()
    for model in (Clinic, Patient):
        state.add_model(ModelState.from_model(model))
    historical: Any = state.apps.get_model("testapp", "Patient")
    assert vars(historical(clinic_id=7)._state)["partition_columns"] == {"clinic_id": 7}
    gone = weakref.ref(historical)
    del historical, state
    gc.collect()
    assert gone() is None
