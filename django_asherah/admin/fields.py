"""A mixin for the admin of models with encrypted fields: one value that can't be opened takes no page down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.utils import display_for_field
from django.core.exceptions import FieldDoesNotExist
from django.db import models
from django.db.models.query import ModelIterable
from django.utils.html import format_html
from django.utils.safestring import SafeString

from django_asherah.fields import EncryptedFieldMixin
from django_asherah.fields.unreadable import TolerantIterable, Unreadable

if TYPE_CHECKING:
    from django.contrib.admin.options import BaseModelAdmin

    Base = BaseModelAdmin[Any]
else:
    Base = object


class EncryptedFieldsAdminMixin(Base):
    """Put it before ``ModelAdmin`` or an inline class: ``class PatientAdmin(EncryptedFieldsAdminMixin, ModelAdmin)``.

    A value that can't be opened is shown as "⚠ could not be decrypted". It can't be edited, and a save of its row, in a
    form, the list or an inline, writes its record back as it was found. Encrypted columns of the list get no link to
    sort by, which the database could not. A KMS or a database that does not answer is still an error.
    """

    def get_queryset(self, request: Any) -> Any:
        """Return the rows, with what can't be opened marked."""
        return _tolerant(super().get_queryset(request))

    def get_list_display(self: Any, request: Any) -> list[Any]:
        """Return the columns of the list, the encrypted ones as functions that know a marked value."""
        names = super().get_list_display(request)  # type: ignore[misc]
        return [name if name in self.list_editable else _column(self.model, name, self) for name in names]

    def get_list_display_links(self: Any, request: Any, list_display: Any) -> Any:
        """Return the columns that link to a row's page, as they are in ``list_display``."""
        links = super().get_list_display_links(request, list_display)  # type: ignore[misc]
        columns = {column.__name__: column for column in list_display if callable(column)}
        return links and [columns.get(link, link) for link in links]

    def get_sortable_by(self: Any, request: Any) -> Any:
        """Return the columns that can be sorted by: none that is encrypted."""
        names = super().get_sortable_by(request)
        return [name for name in names if _encrypted(self.model, name) is None]

    def get_form(self, request: Any, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Return the form of the change page."""
        return _guarded(super().get_form(request, obj, change=change, **kwargs))  # type: ignore[misc]

    def get_changelist_form(self, request: Any, **kwargs: Any) -> Any:
        """Return the form of a row of the list."""
        return _guarded(super().get_changelist_form(request, **kwargs))  # type: ignore[misc]

    def get_changelist_formset(self, request: Any, **kwargs: Any) -> Any:
        """Return the forms of the list."""
        return _guarded_set(super().get_changelist_formset(request, **kwargs))  # type: ignore[misc]

    def render_change_form(self, request: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        """Show the change page, what can't be opened by its form field even where it can only be read."""
        page = context["adminform"]
        page.readonly_fields = [name for name in page.readonly_fields if name not in _find_unreadable(page.form)]
        return super().render_change_form(request, context, *args, **kwargs)  # type: ignore[misc]

    def get_formset(self, request: Any, obj: Any = None, **kwargs: Any) -> Any:
        """Return the forms of an inline."""
        formset = super().get_formset(request, obj, **kwargs)  # type: ignore[misc]
        formset.form = _guarded(formset.form)
        return _guarded_set(formset)


class _Mark(forms.Widget):
    """Shows that there is a value."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        return format_html("<span>{}</span>", value)


class _UnreadableField(forms.Field):
    """Shows that there is a value, and passes it on untouched."""

    widget = _Mark

    def __init__(self, value: Unreadable, label: Any) -> None:
        super().__init__(required=False, disabled=True, label=label, initial=value)

    def clean(self, value: Any) -> Any:
        return value


class _GuardedForm(forms.ModelForm):  # type: ignore[type-arg]
    """Leaves values that could not be opened untouched."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _let_choose(self)
        for name, value in _find_unreadable(self).items():
            label = self.fields[name].label if name in self.fields else value.field.verbose_name
            self.fields[name] = _UnreadableField(value, label)

    def clean(self) -> Any:
        """Refuse to move a row whose values can't be sealed anew: they can't be opened."""
        cleaned = super().clean()
        for value in _find_unreadable(self).values():
            for column in value.field.partition_fields:
                if column.name in self.changed_data:
                    self.add_error(column.name, f"{value.field.verbose_name}: {value}, so its row can't be moved.")
        return cleaned

    def _get_validation_exclusions(self) -> set[str]:
        return {*super()._get_validation_exclusions(), *_find_unreadable(self)}  # type: ignore[misc]


def _find_unreadable(form: Any) -> dict[str, Unreadable]:
    instance = form.instance
    fields = [field for field in instance._meta.concrete_fields if isinstance(field, EncryptedFieldMixin)]
    values = {field.name: getattr(instance, field.attname) for field in fields if field.attname in vars(instance)}
    return {name: value for name, value in values.items() if isinstance(value, Unreadable)}


class _GuardedFormSet:
    def add_fields(self, form: Any, index: Any) -> None:
        super().add_fields(form, index)  # type: ignore[misc]
        _let_choose(form)  # The hidden primary key reads its row.


def _guarded(form: Any) -> Any:
    return type(form.__name__, (_GuardedForm, form), {})


def _guarded_set(formset: Any) -> Any:
    return type(formset.__name__, (_GuardedFormSet, formset), {})


def _let_choose(form: Any) -> None:
    """Let rows be chosen that can't be read in full."""
    for field in form.fields.values():
        if isinstance(field, forms.ModelChoiceField):
            field.queryset = _tolerant(field.queryset)


def _tolerant(queryset: Any) -> Any:
    if getattr(queryset, "_iterable_class", None) is ModelIterable:
        queryset = queryset.all()
        queryset._iterable_class = TolerantIterable
    return queryset


def _encrypted(model: type[models.Model], name: Any) -> Any:
    """Return the encrypted field of that name, or None."""
    try:
        field = model._meta.get_field(name) if isinstance(name, str) else None
    except FieldDoesNotExist:
        return None
    return field if isinstance(field, EncryptedFieldMixin) else None


def _column(model: type[models.Model], name: Any, admin: Any) -> Any:
    field = _encrypted(model, name)
    if field is None:
        return name

    def show(instance: Any) -> Any:
        value = getattr(instance, field.attname)
        if isinstance(value, Unreadable):
            return str(value)
        return display_for_field(value, field, admin.get_empty_value_display())

    show.__name__ = name
    show.short_description = field.verbose_name  # type: ignore[attr-defined]
    return show
