"""What type checkers need and Django's fields lack at runtime: parameters for what a field takes and what it yields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from django.db import models

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Set_contra = TypeVar("Set_contra", contravariant=True, default=Any)
    """What may be assigned to the field's attribute."""

    Get_co = TypeVar("Get_co", covariant=True, default=Any)
    """What the attribute is when read."""

    class GenericField(models.Field[Set_contra, Get_co]):
        """A field."""

else:
    Set_contra = Get_co = Any

    class GenericField(models.Field):
        """A field whose class takes type parameters, as django-stubs writes them, and ignores them."""

        def __class_getitem__(cls, types: Any) -> type[Self]:
            """Return the class itself."""
            return cls
