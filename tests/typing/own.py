"""A field of one's own, typed as ``docs/reference/fields.md`` says."""

from __future__ import annotations

from typing import TypeVar

from django.db import models

from django_asherah.fields import EncryptedFieldMixin

_Set_contra = TypeVar("_Set_contra", contravariant=True)
_Get_co = TypeVar("_Get_co", covariant=True)


class EncryptedSlugField(EncryptedFieldMixin[_Set_contra, _Get_co], models.SlugField):  # type: ignore[type-arg]
    """A slug, encrypted."""


class Article(models.Model):
    """Two slugs."""

    slug = EncryptedSlugField(db_index=False)
    old_slug = EncryptedSlugField(db_index=False, null=True)

    class Meta:
        app_label = "testapp"
