"""Field types for dates, times and durations, sealed in ISO 8601 with every microsecond."""

from __future__ import annotations

import datetime
import warnings
from typing import Any

from django.conf import settings
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone
from django.utils.duration import duration_iso_string

from django_asherah.fields.generic import Get_co, Set_contra
from django_asherah.fields.mixin import EncryptedFieldMixin
from django_asherah.fields.utf8 import decode_text


class EncryptedDateField(EncryptedFieldMixin[Set_contra, Get_co], models.DateField):
    """A ``DateField`` whose column holds only records."""


class EncryptedDateTimeField(EncryptedFieldMixin[Set_contra, Get_co], models.DateTimeField):
    """A ``DateTimeField`` whose column holds only records.

    With ``USE_TZ`` it yields aware datetimes in UTC, as a plain field does, and without it naive ones in the default
    time zone. An aware datetime keeps its instant either way, and if ``USE_TZ`` is changed later.
    """

    def dump(self, value: Any) -> bytes:
        """Return an aware datetime in UTC, a naive one as it is.

        Raises:
            ValidationError, OverflowError: it is no datetime, or is none in UTC.
        """
        moment = self._moment(value)
        if timezone.is_aware(moment):
            moment = moment.astimezone(datetime.UTC)
        return moment.isoformat().encode()

    def load(self, payload: bytes) -> datetime.datetime:
        """Return the datetime: aware and in UTC with ``USE_TZ``, else naive in the default time zone.

        Raises:
            ValueError, OverflowError: the payload is none, or is none in that time zone.
        """
        text = decode_text(payload)
        moment = datetime.datetime.fromisoformat(text)
        if timezone.is_aware(moment) == settings.USE_TZ:
            return moment.astimezone(datetime.UTC) if settings.USE_TZ else moment
        if not settings.USE_TZ:
            return timezone.make_naive(moment, timezone.get_default_timezone())
        # dump() wrote a "T" and local time, while USE_TZ was off. Plain columns were in UTC, and have a space as text.
        zone = timezone.get_default_timezone() if "T" in text else datetime.UTC
        return timezone.make_aware(moment, zone).astimezone(datetime.UTC)

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        """Return the record to store.

        A migration that adds the column takes it for text, and gives the system's local time where Django sets it.

        Raises:
            AsherahError, FieldError: as any other field's.
        """
        is_set = self.auto_now or self.auto_now_add
        if is_set and settings.USE_TZ and value.__class__ is datetime.datetime and timezone.is_naive(value):
            value = value.astimezone()
        return super().get_db_prep_save(value, connection)

    def _moment(self, value: Any) -> datetime.datetime:
        if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
            value = datetime.datetime(value.year, value.month, value.day)
        moment: datetime.datetime = self.to_python(value)
        if settings.USE_TZ and timezone.is_naive(moment):
            # Django's own warning says the value.
            warnings.warn(
                f"{self.full_name} received a naive datetime while time zone support is active.",
                RuntimeWarning,
                stacklevel=2,
            )
            moment = timezone.make_aware(moment, timezone.get_default_timezone())
        return moment


class EncryptedTimeField(EncryptedFieldMixin[Set_contra, Get_co], models.TimeField):
    """A ``TimeField`` whose column holds only records. A time with a time zone is refused: it has no date to go by."""

    def dump(self, value: Any) -> bytes:
        """Return the time in ISO 8601.

        Raises:
            ValidationError, ValueError: it is no time, or has a time zone.
        """
        time: datetime.time = self.to_python(value)
        if time.tzinfo is not None:
            raise ValueError("a time zone")
        return time.isoformat().encode()


class EncryptedDurationField(EncryptedFieldMixin[Set_contra, Get_co], models.DurationField):
    """A ``DurationField`` whose column holds only records."""

    def dump(self, value: Any) -> bytes:
        """Return the duration in ISO 8601.

        Raises:
            AttributeError: it is no ``timedelta``; a plain column takes nothing else either.
        """
        return duration_iso_string(value).encode()

    def load(self, payload: bytes) -> datetime.timedelta:
        """Return the duration.

        Raises:
            ValidationError, ValueError: the payload is none.
        """
        text = decode_text(payload)
        if not any(char.isdecimal() for char in text):
            raise ValueError("Django takes that for no time at all")
        if text.lstrip("-").isdecimal():  # How a plain column of microseconds looks as text.
            return datetime.timedelta(microseconds=int(text))
        duration: datetime.timedelta = self.to_python(text)
        return duration
