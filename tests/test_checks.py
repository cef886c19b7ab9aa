"""System checks: every id once, by the words that the user reads."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from django.apps import apps
from django.apps.registry import Apps
from django.contrib import admin
from django.contrib.admin.sites import AdminSite, all_sites
from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.postgres.constraints import ExclusionConstraint
from django.core.checks import CheckMessage, registry
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import models
from django.db.models import F
from django.db.models.functions import Lower
from django.test.utils import isolate_apps
from pytest_django import Settings

import django_asherah.checks
from django_asherah import engine
from django_asherah.checks.admin import check_admin
from django_asherah.checks.guard import check_partition_guard
from django_asherah.checks.models import check_models
from django_asherah.checks.sessions import check_sessions
from django_asherah.checks.settings import check_deployment, check_settings
from django_asherah.checks.table import check_key_table
from django_asherah.checks.tenants import check_tenant_apps
from django_asherah.fields import EncryptedDateField, EncryptedIntegerField, EncryptedJSONField, EncryptedTextField
from tests.databases import VENDOR, as_asherah, execute
from tests.test_conf import AWS, KEY, STATIC, WEST
from tests.testapp.models import Note, Visit


def ids(messages: list[CheckMessage]) -> list[str | None]:
    return [message.id for message in messages]


class TestSettings:
    def test_the_settings_of_this_suite_are_fine(self) -> None:
        assert check_settings(None) == []

    def test_every_problem_is_an_error_with_its_hint(self, settings: Settings) -> None:
        settings.ASHERAH = {**STATIC, "SERVICE": "", "NOPE": 1}

        found = [(message.id, message.msg, message.hint) for message in check_settings(None)]

        assert found == [
            ("asherah.E002", "settings.ASHERAH has no setting 'NOPE'.", found[0][2]),
            ("asherah.E003", "ASHERAH['SERVICE'] is not set.", "It becomes part of every key id: choose it once."),
        ]
        assert all(message.is_serious() for message in check_settings(None))

    def test_one_region_only_is_a_warning(self, settings: Settings) -> None:
        settings.ASHERAH = {**AWS, "REGIONS": {"us-west-2": WEST}}

        [message] = check_settings(None)

        assert message.id == "asherah.W001"
        assert "one region only" in message.msg
        assert not message.is_serious()

    def test_two_regions_are_fine(self, settings: Settings) -> None:
        settings.ASHERAH = AWS

        assert check_settings(None) == []

    @pytest.mark.parametrize("name", ["SERVICE", "PRODUCT", "KEY_SUFFIX"])
    def test_a_name_with_an_underscore_is_a_warning(self, settings: Settings, name: str) -> None:
        settings.ASHERAH = {**STATIC, name: "a_b"}

        [message] = check_settings(None)

        assert message.id == "asherah.W002"
        assert f"ASHERAH['{name}'] is 'a_b'" in message.msg
        assert not message.is_serious()

    def test_a_suffix_to_read_with_an_underscore_is_a_warning(self, settings: Settings) -> None:
        settings.ASHERAH = {**STATIC, "READ_SUFFIXES": ["eu", "a_b"]}

        [message] = check_settings(None)

        assert message.id == "asherah.W002"
        assert "ASHERAH['READ_SUFFIXES'] is ['eu', 'a_b']" in message.msg

    @pytest.mark.parametrize(
        ("changes", "unread"),
        [
            ({"KEY_SUFFIX": "a"}, ["Keys without a suffix are not read"]),
            ({"READ_SUFFIXES": ["a"]}, ["Keys with the suffix 'a' are not read"]),
            ({"KEY_SUFFIX": "b", "READ_SUFFIXES": ["a"]}, ["Keys with the suffix 'a' are not read"]),
            ({"KEY_SUFFIX": "b", "READ_SUFFIXES": ["c"]}, []),
        ],
    )
    def test_a_suffix_whose_ids_can_be_another_partitions_is_a_warning(
        self, settings: Settings, changes: dict[str, Any], unread: list[str]
    ) -> None:
        settings.ASHERAH = {**STATIC, "SERVICE": "a", "PRODUCT": "a", **changes}

        assert [(message.id, message.msg.partition(":")[0]) for message in check_settings(None)] == [
            ("asherah.W002", text) for text in unread
        ]

    def test_a_partition_with_an_underscore_is_fine(self, settings: Settings) -> None:
        settings.ASHERAH = {**STATIC, "PARTITION": "a_b"}

        assert check_settings(None) == []

    @pytest.mark.django_db(databases=["default", "other"])
    def test_the_check_command_finds_them(self, settings: Settings) -> None:
        settings.ASHERAH = {**STATIC, "SERVICE": ""}

        with pytest.raises(SystemCheckError, match=r"\(asherah\.E003\) ASHERAH\['SERVICE'\] is not set"):
            call_command("check")

    def test_a_check_can_be_silenced(self, settings: Settings) -> None:
        settings.ASHERAH = {**STATIC, "SERVICE": "a_b"}
        settings.SILENCED_SYSTEM_CHECKS = ["asherah.W002"]

        [message] = check_settings(None)

        assert message.is_silenced()


class TestTenants:
    """The settings of django-tenants."""

    def found(self, settings: Settings, **changes: Any) -> list[tuple[str | None, str]]:
        settings.ASHERAH = {**STATIC, **changes.pop("ASHERAH", {})}
        for name, value in changes.items():
            setattr(settings, name, value)
        return [(message.id, message.msg) for message in check_tenant_apps(None)]

    def test_a_key_table_in_the_public_schema_alone_is_right(self, settings: Settings) -> None:
        assert self.found(settings) == []
        assert self.found(settings, SHARED_APPS=["django_asherah"], TENANT_APPS=["clinic", "django_asherah_ext"]) == []
        types = {"public": {"APPS": ["django_asherah"]}, "large": {"APPS": ["clinic"], "URLCONF": ""}}
        assert self.found(settings, TENANT_TYPES=types) == []

    @pytest.mark.parametrize("app", ["django_asherah", "django_asherah.apps.DjangoAsherahConfig"])
    @pytest.mark.parametrize("shared", [[], ["django_asherah"]], ids=["tenants alone", "both"])
    def test_one_in_each_tenants_schema_is_an_error(self, settings: Settings, app: str, shared: list[str]) -> None:
        [(id, text)] = self.found(settings, SHARED_APPS=shared, TENANT_APPS=["clinic", app])
        assert id == "asherah.E018"
        assert text.startswith(
            "'django_asherah' is in TENANT_APPS, so each tenant's schema gets a key table of its own"
        )

    def test_tenants_of_several_types_are_looked_at_each(self, settings: Settings) -> None:
        types = {"shared": {"APPS": ["django_asherah"]}, "large": {"APPS": ["django_asherah"]}, "small": {}}
        [(id, text)] = self.found(settings, TENANT_TYPES=types, PUBLIC_SCHEMA_NAME="shared")
        assert id == "asherah.E018"
        assert "is in TENANT_TYPES['large']['APPS'], so" in text

    def test_keys_that_are_in_no_database_are_none_of_its_business(self, settings: Settings) -> None:
        assert self.found(settings, TENANT_APPS=["django_asherah"], ASHERAH={"METASTORE": "memory"}) == []


class TestPartitionGuard:
    GIVEN: ClassVar[list[str]] = ["django_asherah.middleware.PartitionGuardMiddleware"]

    def found(self, settings: Settings, path: str, middleware: list[str]) -> list[tuple[str | None, str, bool]]:
        settings.ASHERAH, settings.MIDDLEWARE = {**STATIC, "PARTITION_GUARD": path}, middleware
        return [(message.id, message.msg, message.is_serious()) for message in check_partition_guard(None)]

    def test_a_function_and_the_middleware_go_together(self, settings: Settings) -> None:
        assert self.found(settings, "", []) == []
        assert self.found(settings, "tests.test_middleware.clinic_of", self.GIVEN) == []

    def test_a_function_that_nobody_asks_is_a_warning(self, settings: Settings) -> None:
        [(id, text, is_serious)] = self.found(settings, "tests.test_middleware.clinic_of", [])

        assert (id, is_serious) == ("asherah.W003", False)
        assert "no request is guarded: the middleware is missing" in text

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("", "is not set, and PartitionGuardMiddleware needs it."),
            ("tests.nowhere.clinic_of", "is 'tests.nowhere.clinic_of', which can't be imported: No module named"),
            (
                "tests.test_middleware.nobody",
                'which can\'t be imported: Module "tests.test_middleware" does not define',
            ),
            ("tests.settings.ASHERAH", "is 'tests.settings.ASHERAH', which is no function, but a dict."),
        ],
    )
    def test_no_function_is_an_error(self, settings: Settings, path: str, reason: str) -> None:
        [(id, text, is_serious)] = self.found(settings, path, self.GIVEN)

        assert (id, is_serious) == ("asherah.E017", True)
        assert text.startswith("ASHERAH['PARTITION_GUARD'] is ")
        assert reason in text

    def test_settings_that_are_wrong_are_left_to_their_own_check(self, settings: Settings) -> None:
        assert self.found(settings, "nowhere", self.GIVEN) == []


class TestDeployment:
    @pytest.fixture(autouse=True)
    def no_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"):
            monkeypatch.delenv(name, raising=False)

    def test_regions_on_aws_are_fine(self, settings: Settings) -> None:
        settings.ASHERAH = AWS

        assert check_deployment(None) == []

    def test_the_static_kms_is_an_error(self, settings: Settings) -> None:
        settings.ASHERAH = STATIC

        [message] = check_deployment(None)

        assert message.id == "asherah.E020"
        assert message.is_serious()
        assert KEY not in f"{message.msg}{message.hint}"

    @pytest.mark.parametrize(
        "url",
        [
            "http://localhost:5000",
            "https://localhost:5000",
            "https://127.0.0.1:5000",
            "https://[::1]:5000",
            "http://127.8.9.1",
            "http://kms.us-west-2.amazonaws.com",
            "https://",
        ],
    )
    def test_an_emulated_kms_is_an_error(self, settings: Settings, url: str) -> None:
        settings.ASHERAH = {**AWS, "KMS_OPTIONS": {"endpoint_urls": {"us-east-1": url}}}

        [message] = check_deployment(None)

        assert message.id == "asherah.E021"
        assert f"ASHERAH['KMS_OPTIONS']['endpoint_urls']['us-east-1'] is '{url}'" in message.msg

    @pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"])
    def test_an_emulated_kms_from_the_environment_is_an_error(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        settings.ASHERAH = AWS
        monkeypatch.setenv(name, "http://127.0.0.1:5000")

        [message] = check_deployment(None)

        assert message.id == "asherah.E021"
        assert f"The environment variable {name} is" in message.msg

    @pytest.mark.parametrize(
        "url",
        [
            "https://vpce-0a1b.kms.us-east-1.vpce.amazonaws.com",
            "https://10.0.0.7",
            "https://kms-fips.us-east-1.amazonaws.com",
        ],
    )
    def test_a_private_endpoint_is_fine(self, settings: Settings, url: str) -> None:
        settings.ASHERAH = {**AWS, "KMS_OPTIONS": {"endpoint_urls": {"us-east-1": url}}}

        assert check_deployment(None) == []

    @pytest.mark.parametrize("url", ["http://localhost:8000", "https://127.0.0.1", "http://dynamodb.example.com"])
    def test_an_emulated_dynamodb_is_an_error(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        settings.ASHERAH = {**AWS, "METASTORE": "dynamodb", "METASTORE_OPTIONS": {"endpoint_url": url}}
        [message] = check_deployment(None)
        assert message.id == "asherah.E023"
        assert f"ASHERAH['METASTORE_OPTIONS']['endpoint_url'] is '{url}'" in message.msg

        settings.ASHERAH = {**AWS, "METASTORE": "dynamodb"}
        assert check_deployment(None) == []
        monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
        [message] = check_deployment(None)
        assert message.id == "asherah.E023"
        assert "The environment variable AWS_ENDPOINT_URL_DYNAMODB is" in message.msg

        settings.ASHERAH = AWS
        assert check_deployment(None) == []

    def test_the_metastore_in_memory_is_an_error(self, settings: Settings) -> None:
        settings.ASHERAH = {**AWS, "METASTORE": "memory"}

        [message] = check_deployment(None)

        assert message.id == "asherah.E022"
        assert "every key is lost" in message.msg

    def test_wrong_settings_are_reported_once_by_the_other_check(self, settings: Settings) -> None:
        settings.ASHERAH = {**STATIC, "SERVICE": ""}

        assert check_deployment(None) == []

    @pytest.mark.django_db(databases=["default", "other"])
    def test_the_check_command_finds_them_with_deploy_only(self, settings: Settings) -> None:
        settings.ASHERAH = STATIC
        call_command("check")

        with pytest.raises(SystemCheckError, match=r"\(asherah\.E020\) ASHERAH\['KMS'\] is 'static'"):
            call_command("check", deploy=True)

    def test_it_runs_with_deploy_only(self) -> None:
        assert check_deployment not in registry.registry.get_checks()
        assert check_deployment in registry.registry.get_checks(include_deployment_checks=True)


COLUMNS = {
    "sqlite": {"id": "VARCHAR(255)", "created": "TIMESTAMP", "key_record": "TEXT", "row_id": "BIGINT"},
    "postgresql": {"id": "VARCHAR(255)", "created": "timestamptz", "key_record": "jsonb", "row_id": "BIGINT"},
    "mysql": {
        "id": "VARCHAR(255) COLLATE utf8mb4_bin",
        "created": "TIMESTAMP",
        "key_record": "TEXT",
        "row_id": "BIGINT",
    },
}[VENDOR]
FOLDING = {
    "sqlite": ["TEXT COLLATE NOCASE"],
    "postgresql": ["varchar(255) COLLATE folding"],
    "mysql": [
        "VARCHAR(255) COLLATE utf8mb4_general_ci",
        "VARCHAR(255) COLLATE utf8mb4_unicode_ci",
        "VARCHAR(255) CHARACTER SET latin1 COLLATE latin1_bin",
        "VARCHAR(255) CHARACTER SET utf8mb3 COLLATE utf8mb3_bin",
    ],
}[VENDOR]
TROUBLE = {"postgresql": [("created", "timestamp"), ("key_record", "text")]}.get(VENDOR, [])
WRONG_TYPES = {
    "sqlite": [("id", "INTEGER"), ("id", "VARCHAR(100)"), ("created", "INTEGER"), ("key_record", "INTEGER")],
    "postgresql": [("id", "uuid"), ("id", "varchar(100)"), ("created", "bigint"), ("key_record", "bytea")],
    "mysql": [
        ("id", "BIGINT"),
        ("id", "VARCHAR(100) COLLATE utf8mb4_bin"),
        ("created", "BIGINT"),
        ("key_record", "TINYTEXT"),
    ],
}[VENDOR]


class TestKeyTable:
    @pytest.fixture
    def make_table(self, empty_alias: str, settings: Settings) -> Callable[..., list[CheckMessage]]:
        """Make a key table with other columns than a right one's; return what the check says of it."""
        settings.ASHERAH = as_asherah(DATABASE=empty_alias)

        def make(unique: str = "PRIMARY KEY (id, created)", **changes: str | None) -> list[CheckMessage]:
            columns = [f"{name} {type}" for name, type in {**COLUMNS, **changes}.items() if type]
            execute(
                empty_alias, f"CREATE TABLE encryption_key ({', '.join([*columns, unique] if unique else columns)})"
            )
            return check_key_table(None, databases=[empty_alias])

        return make

    @pytest.mark.parametrize("alias_of_keys", ["default", "other"])
    @pytest.mark.django_db(databases=["default", "other"])
    def test_the_table_of_our_migration_is_right(self, settings: Settings, alias_of_keys: str) -> None:
        settings.ASHERAH = as_asherah(DATABASE=alias_of_keys)

        assert check_key_table(None, databases=["default", "other"]) == []

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize(
        ("service", "product", "suffix", "told"),
        [
            ("app", "pay", "eu", ["_SK_pay_eu"]),
            ("pay", "eu", "", ["_SK_app_pay_eu", "_SK_my_app_pay_eu"]),
            ("app", "pay", "", []),
            ("app", "pay", "us", []),
            ("PAY", "EU", "", []),
            ("ay", "eu", "", []),
        ],
    )
    def test_keys_of_a_service_whose_ids_can_be_the_same_are_a_warning(
        self, settings: Settings, service: str, product: str, suffix: str, told: list[str]
    ) -> None:
        for other in (("app", "pay", "eu"), ("pay", "eu", ""), ("my_app", "pay", "eu"), ("q", "z", "")):
            if suffix != "eu" or other[0] != "my_app":
                settings.ASHERAH = as_asherah(**dict(zip(("SERVICE", "PRODUCT", "KEY_SUFFIX"), other, strict=True)))
                engine.get_session("t1").encrypt(b"")
        settings.ASHERAH = as_asherah(SERVICE=service, PRODUCT=product, KEY_SUFFIX=suffix)

        found = check_key_table(None, databases=["default"])

        assert [message.id for message in found] == ["asherah.W002"] * len(told)
        ours = "_".join(filter(None, ["_SK", service, product, suffix]))
        for message, key_id in zip(found, told, strict=True):
            assert f" holds keys under system key {key_id} of another service or product" in message.msg
            assert message.msg.endswith(f"can be the same as those under {ours}.")
            assert not message.is_serious()

    def test_the_table_of_the_official_ddl_is_right(self, make_table: Callable[..., list[CheckMessage]]) -> None:
        [message] = make_table(row_id=None)

        assert message.id == "asherah.W032"
        assert message.msg.endswith("has no column 'row_id', so the admin can't show the keys.")
        assert not message.is_serious()

    def test_without_the_admin_nobody_misses_its_column(
        self, make_table: Callable[..., list[CheckMessage]], settings: Settings
    ) -> None:
        settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "django.contrib.admin"]

        assert make_table(row_id=None) == []

    def test_a_unique_constraint_does_as_well_as_a_primary_key(
        self, make_table: Callable[..., list[CheckMessage]]
    ) -> None:
        assert make_table(unique="UNIQUE (created, id)") == []

    def test_without_the_table_a_migrated_database_gets_a_warning(self, empty_alias: str, settings: Settings) -> None:
        settings.ASHERAH = as_asherah(DATABASE=empty_alias)
        assert check_key_table(None, databases=[empty_alias]) == []
        execute(empty_alias, "CREATE TABLE django_migrations (id INT)")

        [message] = check_key_table(None, databases=[empty_alias])

        assert message.id == "asherah.W031"
        assert message.msg == "The key table 'encryption_key' of database 'empty' is missing."
        assert message.hint == "Run manage.py migrate --database empty."

    @pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite has no server")
    def test_a_database_that_does_not_answer_is_an_error(
        self, make_alias: Callable[..., str], settings: Settings
    ) -> None:
        alias = make_alias("nowhere", PORT="1")
        settings.ASHERAH = as_asherah(DATABASE=alias)

        [message] = check_key_table(None, databases=[alias])

        assert message.id == "asherah.E030"
        assert "of database 'nowhere' can't be read: " in message.msg

    def test_another_kind_of_database_is_an_error(self, make_alias: Callable[..., str], settings: Settings) -> None:
        settings.ASHERAH = as_asherah(DATABASE=make_alias("dummy", ENGINE="django.db.backends.dummy"))

        [message] = check_key_table(None, databases=["dummy"])

        assert message.id == "asherah.E030"
        assert message.hint == "Use PostgreSQL, MySQL, MariaDB or SQLite."

    @pytest.mark.parametrize("missing", ["created", "key_record"])
    def test_a_missing_column_is_an_error(self, make_table: Callable[..., list[CheckMessage]], missing: str) -> None:
        [message] = make_table(unique="", **{missing: None})

        assert message.id == "asherah.E031"
        assert f"has no column '{missing}'" in message.msg

    @pytest.mark.parametrize(("column", "type"), WRONG_TYPES)
    def test_a_wrong_type_is_an_error(
        self, make_table: Callable[..., list[CheckMessage]], column: str, type: str
    ) -> None:
        [message] = make_table(**{column: type})

        assert message.id == "asherah.E032"
        assert f"has a column '{column}' of type " in message.msg

    # Django 6.1 asks every database what it can do.
    @pytest.mark.django_db(databases=["default", "other"])
    def test_the_check_command_finds_them_with_the_database_named_only(
        self, make_table: Callable[..., list[CheckMessage]], empty_alias: str
    ) -> None:
        make_table(created=WRONG_TYPES[2][1])
        call_command("check")

        with pytest.raises(SystemCheckError, match=rf"\(asherah\.E032\) .* of database '{empty_alias}' has a column"):
            call_command("check", databases=[empty_alias])

    @pytest.mark.parametrize("type", FOLDING)
    def test_ids_that_are_not_compared_byte_for_byte_are_an_error(
        self, make_table: Callable[..., list[CheckMessage]], empty_alias: str, type: str
    ) -> None:
        if VENDOR == "postgresql":
            execute(
                empty_alias,
                "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level1', deterministic = false)",
            )
        [message] = make_table(id=type)

        assert message.id == "asherah.E033"
        assert "different partitions may share a key" in message.msg
        assert "utf8mb4_bin" in str(message.hint)

    @pytest.mark.parametrize("unique", ["", "UNIQUE (id)", "UNIQUE (id, created, key_record)"])
    def test_a_table_that_keeps_no_key_unique_is_an_error(
        self, make_table: Callable[..., list[CheckMessage]], unique: str
    ) -> None:
        if VENDOR == "mysql":
            unique = unique.replace("key_record", "key_record(10)")
        [message] = make_table(unique=unique)

        assert message.id == "asherah.E034"
        assert "has no unique constraint on (id, created)" in message.msg

    @pytest.mark.skipif(VENDOR == "mysql", reason="MySQL has no partial indexes")
    def test_an_index_over_a_part_of_the_rows_keeps_no_key_unique(
        self, make_table: Callable[..., list[CheckMessage]], empty_alias: str
    ) -> None:
        make_table(unique="")
        execute(empty_alias, "CREATE UNIQUE INDEX part ON encryption_key (id, created) WHERE id > 'a'")

        assert [message.id for message in check_key_table(None, databases=[empty_alias])] == ["asherah.E034"]

    @pytest.mark.skipif(VENDOR != "postgresql", reason="only PostgreSQL's indexes include columns")
    def test_an_index_that_includes_a_column_keeps_keys_unique(
        self, make_table: Callable[..., list[CheckMessage]], empty_alias: str
    ) -> None:
        make_table(unique="")
        execute(empty_alias, "CREATE UNIQUE INDEX whole ON encryption_key (id, created) INCLUDE (row_id)")

        assert check_key_table(None, databases=[empty_alias]) == []

    @pytest.mark.skipif(not TROUBLE, reason="about PostgreSQL's types")
    @pytest.mark.parametrize(("column", "type"), TROUBLE)
    def test_types_that_other_sdks_stumble_over_are_a_warning(
        self, make_table: Callable[..., list[CheckMessage]], column: str, type: str
    ) -> None:
        [message] = make_table(**{column: type})

        assert message.id == "asherah.W030"
        assert f"has a column '{column}' of type {type}" in message.msg
        assert not message.is_serious()

    @pytest.mark.parametrize("databases", [None, [], ["other"]])
    def test_databases_that_were_not_asked_for_are_left_alone(self, databases: list[str] | None) -> None:
        assert check_key_table(None, databases=databases) == []

    def test_another_metastore_needs_no_table(self, settings: Settings) -> None:
        settings.ASHERAH = as_asherah(METASTORE="memory")

        assert check_key_table(None, databases=["default"]) == []

    def test_wrong_settings_are_reported_once_by_the_other_check(self, settings: Settings) -> None:
        settings.ASHERAH = {}

        assert check_key_table(None, databases=["default"]) == []


SECRET_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "ordering": ({"ordering": ["-secret"]}, "asherah.E105", "'ordering' or 'get_latest_by' names"),
    "ordering by an expression": ({"ordering": [models.F("secret").desc()]}, "asherah.E105", "'ordering'"),
    "ordering by a function": ({"ordering": [Lower("secret")]}, "asherah.E105", "'ordering'"),
    "ordering through a relation": ({"ordering": ["note__body"]}, "asherah.E105", "testapp.Note.body"),
    "get_latest_by": ({"get_latest_by": "secret"}, "asherah.E105", "'get_latest_by'"),
    "get_latest_by of several": ({"get_latest_by": ["plain", "-secret"]}, "asherah.E105", "'get_latest_by'"),
    "unique_together": ({"unique_together": [("plain", "secret")]}, "asherah.E106", "'unique_together' names"),
    "a unique constraint": (
        {"constraints": [models.UniqueConstraint(fields=["plain", "secret"], name="c")]},
        "asherah.E107",
        "constraint 'c' names",
    ),
    "a unique constraint's expression": (
        {"constraints": [models.UniqueConstraint(Lower("secret"), name="c")]},
        "asherah.E107",
        "constraint 'c' names",
    ),
    "a unique constraint's condition": (
        {"constraints": [models.UniqueConstraint(fields=["plain"], condition=models.Q(secret="x"), name="c")]},
        "asherah.E107",
        "constraint 'c' names",
    ),
    "a check constraint": (
        {"constraints": [models.CheckConstraint(condition=~models.Q(secret=""), name="c")]},
        "asherah.E107",
        "constraint 'c' names",
    ),
    "a check constraint of two columns": (
        {"constraints": [models.CheckConstraint(condition=models.Q(plain=models.F("secret")), name="c")]},
        "asherah.E107",
        "constraint 'c' names",
    ),
    "a check constraint within another": (
        {
            "constraints": [
                models.CheckConstraint(
                    condition=models.Q(plain="") | (models.Q(plain="x") & models.Q(secret__gt="x")), name="c"
                )
            ]
        },
        "asherah.E107",
        "constraint 'c' names",
    ),
    "an exclusion constraint": (
        {"constraints": [ExclusionConstraint(name="c", expressions=[("secret", "="), ("plain", "&&")])]},
        "asherah.E107",
        "constraint 'c' names",
    ),
    "an index": ({"indexes": [models.Index(fields=["plain", "-secret"], name="i")]}, "asherah.E108", "index 'i' names"),
    "an index on a function": ({"indexes": [models.Index(Lower("secret"), name="i")]}, "asherah.E108", "index 'i'"),
    "an index on a key path": ({"indexes": [models.Index("doc__a", name="i")]}, "asherah.E108", "testapp.Guarded.doc"),
    "an index that includes": (
        {"indexes": [models.Index(fields=["plain"], include=["secret"], name="i")]},
        "asherah.E108",
        "index 'i' names",
    ),
    "an index with a condition": (
        {"indexes": [models.Index(fields=["plain"], condition=models.Q(secret__startswith="x"), name="i")]},
        "asherah.E108",
        "index 'i' names",
    ),
}
FIELD_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    **{
        f"{option} of an encrypted field": (
            {"day": models.DateField(), "code": EncryptedTextField(**{option: "day"})},
            "asherah.E109",
            f"'{option}' of 'code' names the encrypted field testapp.Guarded.code",
        )
        for option in ("unique_for_date", "unique_for_month", "unique_for_year")
    },
    "unique_for_date in an encrypted date": (
        {"born": EncryptedDateField(), "code": models.TextField(unique_for_date="born")},
        "asherah.E109",
        "'unique_for_date' of 'code' names the encrypted field testapp.Guarded.born",
    ),
    "a generated field": (
        {"copy": models.GeneratedField(expression=Lower("secret"), output_field=models.TextField(), db_persist=True)},
        "asherah.E110",
        "the expression of 'copy' names the encrypted field testapp.Guarded.secret",
    ),
    "a generated field of a key path": (
        {"copy": models.GeneratedField(expression=F("doc__a"), output_field=models.TextField(), db_persist=True)},
        "asherah.E110",
        "the expression of 'copy' names the encrypted field testapp.Guarded.doc",
    ),
    "a generic foreign key": (
        {
            "kind": models.ForeignKey("contenttypes.ContentType", models.CASCADE, related_name="+"),
            "key": EncryptedIntegerField(),
            "thing": GenericForeignKey("kind", "key"),
        },
        "asherah.E118",
        "the object id of 'thing' names the encrypted field testapp.Guarded.key",
    ),
}
HARMLESS_FIELDS: dict[str, dict[str, Any]] = {
    "unique_for_date between other columns": {
        "day": models.DateField(),
        "code": models.TextField(unique_for_date="day"),
    },
    "generated from another column": {
        "copy": models.GeneratedField(expression=Lower("plain"), output_field=models.TextField(), db_persist=True)
    },
}
HARMLESS_OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "other columns": {"ordering": ["plain", "-pk", "?"], "indexes": [models.Index(fields=["plain"], name="i")]},
    "a key path of a plain JSON column": {"ordering": ["clear__secret"]},
    "whether it is NULL": {
        "constraints": [
            models.CheckConstraint(condition=models.Q(secret__isnull=False) | models.Q(doc=None), name="c"),
            models.UniqueConstraint(fields=["plain"], condition=models.Q(secret__isnull=True), name="d"),
        ]
    },
    "a name that is not there": {"ordering": ["nowhere"]},
}


def messages_for(options: dict[str, Any], fields: dict[str, Any] | None = None) -> list[CheckMessage]:
    """Check a model with encrypted fields, whose ``Meta`` has ``options``, and which has more ``fields``."""
    with isolate_apps("tests.testapp") as isolated:
        attributes = {
            "__module__": __name__,
            "Meta": type("Meta", (), {"app_label": "testapp", **options}),
            "secret": EncryptedTextField(null=True),
            "doc": EncryptedJSONField(null=True),
            "clear": models.JSONField(null=True),
            "plain": models.TextField(),
            "note": models.ForeignKey(Note, models.CASCADE, related_name="+"),
            **(fields or {}),
        }
        type("Guarded", (models.Model,), attributes)
        return check_models(list(cast(Apps, isolated).get_app_configs()))


class TestModels:
    @pytest.mark.parametrize(("options", "id", "fragment"), SECRET_OPTIONS.values(), ids=SECRET_OPTIONS)
    def test_what_the_database_can_not_do_is_an_error(self, options: dict[str, Any], id: str, fragment: str) -> None:
        [message] = messages_for(options)

        assert message.id == id
        assert fragment in message.msg
        assert "the encrypted field testapp." in message.msg
        assert message.is_serious()
        assert message.obj.__name__ == "Guarded"

    @pytest.mark.parametrize(("fields", "id", "fragment"), FIELD_OPTIONS.values(), ids=FIELD_OPTIONS)
    def test_what_a_field_can_not_do_is_an_error(self, fields: dict[str, Any], id: str, fragment: str) -> None:
        messages = messages_for({}, copy.deepcopy(fields))

        assert [(message.id, message.msg) for message in messages] == [(id, f"{fragment}.")]
        assert messages[0].obj.name in fields

    @pytest.mark.parametrize("fields", HARMLESS_FIELDS.values(), ids=HARMLESS_FIELDS)
    def test_what_a_field_can_do_is_fine(self, fields: dict[str, Any]) -> None:
        assert messages_for({}, copy.deepcopy(fields)) == []

    def test_a_foreign_key_to_an_encrypted_field_is_an_error(self) -> None:
        """It would have to be unique, which is the error."""
        with isolate_apps("tests.testapp"):
            field = EncryptedTextField(unique=True)
            attributes = {
                "__module__": __name__,
                "Meta": type("Meta", (), {"app_label": "testapp"}),
                "secret": field,
                "other": models.ForeignKey("self", models.CASCADE, to_field="secret", related_name="+"),
            }
            model = type("Guarded", (models.Model,), attributes)
            found = ids(cast(Any, model).check())
        assert "asherah.E101" in found

    @pytest.mark.parametrize("options", HARMLESS_OPTIONS.values(), ids=HARMLESS_OPTIONS)
    def test_what_the_database_can_do_is_fine(self, options: dict[str, Any]) -> None:
        assert messages_for(options) == []

    def test_several_fields_are_several_errors(self) -> None:
        messages = messages_for({"ordering": ["secret", "doc"], "unique_together": [("secret", "doc")]})

        assert ids(messages) == ["asherah.E105", "asherah.E105", "asherah.E106", "asherah.E106"]

    def test_the_models_of_this_suite_are_fine(self) -> None:
        assert check_models(None) == []

    def test_only_the_apps_asked_for_are_checked(self) -> None:
        assert check_models([apps.get_app_config("auth")]) == []


@pytest.fixture
def messages_of_admin() -> Iterator[Callable[..., list[CheckMessage]]]:
    """Register ``Visit`` in a site of its own with the given options; return what the check says."""
    site = AdminSite("checked")

    def check(**options: Any) -> list[CheckMessage]:
        site.register(Visit, type("VisitAdmin", (admin.ModelAdmin,), options))
        return [message for message in check_admin(None) if message.obj.__name__ == "VisitAdmin"]

    yield check
    all_sites.discard(site)


@admin.display(ordering="id")
def shown(visit: Visit) -> str:
    return str(visit.remark)


class YesNo(admin.SimpleListFilter):
    title, parameter_name = "yes", "yes"


class TestAdmin:
    @pytest.mark.parametrize(
        ("options", "id", "field"),
        [
            ({"search_fields": ["remark"]}, "asherah.E111", "testapp.Visit.remark"),
            ({"search_fields": ["=remark"]}, "asherah.E111", "testapp.Visit.remark"),
            ({"search_fields": ["id", "^note__body"]}, "asherah.E111", "testapp.Note.body"),
            ({"search_fields": ["remark__icontains"]}, "asherah.E111", "testapp.Visit.remark"),
            ({"list_filter": ["remark"]}, "asherah.E112", "testapp.Visit.remark"),
            ({"list_filter": ["note__title", "note__body"]}, "asherah.E112", "testapp.Note.body"),
            ({"list_filter": [("remark", admin.AllValuesFieldListFilter)]}, "asherah.E112", "testapp.Visit.remark"),
            ({"list_filter": [("remark", admin.EmptyFieldListFilter)]}, "asherah.E112", "testapp.Visit.remark"),
            ({"ordering": ["-remark"]}, "asherah.E113", "testapp.Visit.remark"),
            ({"ordering": [models.F("note__body").asc()]}, "asherah.E113", "testapp.Note.body"),
            ({"date_hierarchy": "remark"}, "asherah.E114", "testapp.Visit.remark"),
            ({"date_hierarchy": "note__body"}, "asherah.E114", "testapp.Note.body"),
            ({"sortable_by": ["id", "remark"]}, "asherah.E115", "testapp.Visit.remark"),
        ],
    )
    def test_what_the_database_can_not_do_is_an_error(
        self, messages_of_admin: Callable[..., list[CheckMessage]], options: dict[str, Any], id: str, field: str
    ) -> None:
        [message] = messages_of_admin(**options)

        assert message.id == id
        assert message.msg == f"'{next(iter(options))}' names the encrypted field {field}."
        assert "it can't sort, compare or search them" in str(message.hint)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"list_display": ["id", "remark"], "sortable_by": ["id"], "list_editable": ["remark"]},
            {"list_display": ["id", "remark"], "get_sortable_by": lambda self, request: ["id"]},
            {"list_display": ["id", shown], "fields": ["remark", "note"], "readonly_fields": ["remark"]},
            {"inlines": [type("NoteInline", (admin.TabularInline,), {"model": Visit, "ordering": ["id"]})]},
            {"search_fields": ["note__title", "^id"], "ordering": ["-note__title", "id"]},
            {"list_filter": ["note", YesNo]},
        ],
        ids=range(7),
    )
    def test_what_the_database_can_do_is_fine(
        self, messages_of_admin: Callable[..., list[CheckMessage]], options: dict[str, Any]
    ) -> None:
        assert messages_of_admin(**options) == []

    def test_the_ordering_of_an_inline(self, messages_of_admin: Callable[..., list[CheckMessage]]) -> None:
        inline = type("VisitInline", (admin.TabularInline,), {"model": Visit, "ordering": ["-remark"]})
        site = AdminSite("checked as well")
        site.register(Note, type("NoteAdmin", (admin.ModelAdmin,), {"inlines": [inline]}))

        found = [message for message in check_admin(None) if message.obj is inline]

        all_sites.discard(site)
        assert [(message.id, message.msg) for message in found] == [
            ("asherah.E113", "'ordering' names the encrypted field testapp.Visit.remark.")
        ]

    @pytest.mark.parametrize("order", ["remark", "-note__body", models.F("remark").desc()])
    def test_the_ordering_of_a_column(self, messages_of_admin: Callable[..., list[CheckMessage]], order: Any) -> None:
        column = admin.display(ordering=order)(lambda self, visit: "x")

        [message] = messages_of_admin(list_display=["id", "column"], column=column)

        assert message.id == "asherah.E115"
        assert message.msg.startswith("the 'ordering' of 'column' in 'list_display' names the encrypted field testapp.")

    def test_a_heading_that_can_be_clicked_on(self, messages_of_admin: Callable[..., list[CheckMessage]]) -> None:
        [message] = messages_of_admin(list_display=["id", "remark"])

        assert (message.id, message.is_serious()) == ("asherah.W115", False)
        assert "testapp.Visit.remark, and clicking its heading sorts by it" in message.msg
        with pytest.raises(FieldError):
            list(Visit.objects.order_by("remark"))

    def test_apps_that_were_not_asked_for_are_left_alone(
        self, messages_of_admin: Callable[..., list[CheckMessage]]
    ) -> None:
        messages_of_admin(search_fields=["remark"])

        assert check_admin([apps.get_app_config("auth")]) == []
        assert ids(check_admin([apps.get_app_config("testapp")])) == ["asherah.E111"]


def test_every_id_is_documented_and_every_documented_id_is_used() -> None:
    documented = re.findall(r"^asherah\.[EW]\d{3}", str(django_asherah.checks.__doc__), re.MULTILINE)
    sources = [path.read_text() for path in Path(django_asherah.__file__).parent.rglob("*.py")]
    used = {
        f"asherah.{id}"
        for source in sources
        if "System checks. Their ids are stable" not in source
        for id in re.findall(r"\b([EW]\d{3})\b", source)
    }

    assert len(documented) == len(set(documented))
    assert used == set(documented)


def test_every_id_is_proven_by_a_test() -> None:
    documented = set(re.findall(r"^asherah\.[EW]\d{3}", str(django_asherah.checks.__doc__), re.MULTILINE))
    tests = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))

    assert {id for id in documented if f'"{id}"' not in tests} == set()


@pytest.mark.skipif(VENDOR != "mysql", reason="about MySQL's modes")
class TestSessions:
    @pytest.mark.parametrize("mode", ["STRICT_TRANS_TABLES", "STRICT_ALL_TABLES,ANSI", "TRADITIONAL"])
    def test_strict_ones_are_fine(self, make_alias: Callable[..., str], mode: str) -> None:
        assert check_sessions(None, databases=[make_alias("strict", OPTIONS={"sql_mode": mode})]) == []

    def test_others_are_a_warning_where_encrypted_fields_are(self, make_alias: Callable[..., str]) -> None:
        alias = make_alias("loose", OPTIONS={"sql_mode": "NO_ENGINE_SUBSTITUTION"})

        [message] = check_sessions(None, databases=[alias, "default"])

        assert message.id == "asherah.W036"
        assert not message.is_serious()
        assert re.search(r"database 'loose' are not strict, .* \d+ encrypted fields are in danger, ", message.msg)
        assert "STRICT_TRANS_TABLES" in str(message.hint)
