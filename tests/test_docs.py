"""The documentation tells the truth: its code runs, its commands exist, and nothing public is left out.

In ``docs/`` and the README, every Python block is run. Those that follow a line ``% run`` are run here, a page's blocks
in order and in one namespace, and with them the lines that begin with ``%`` right before or after, which the built page
does not show. The others are run by the tests that ``RUN_BY`` names. Of every line that calls ``manage.py``, the
command exists and takes those arguments.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import BaseCommand, get_commands, load_command_class
from django.db import connection, models
from django.dispatch import Signal
from django.test.utils import isolate_apps
from pytest_django import Settings

from django_asherah import conf, exceptions, fields, health, operations, signals
from django_asherah.copying import ColumnCopy
from django_asherah.envelope import interfaces
from django_asherah.kms import aws
from django_asherah.storage import EncryptedStorage
from django_asherah.views import EncryptedFileView
from tests.databases import ROOT, as_asherah

DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = [ROOT / "README.md", *(page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts)]
FENCE = re.compile(
    r"^(?:(?P<run> *% run\n)(?P<before>(?: *% [^\n]*\n)*))?(?P<indent> *)```(?P<language>\w+)\n(?P<code>.*?)^ *```"
    r"(?P<after>(?:\n *% [^\n]*)*)$",
    re.DOTALL | re.MULTILINE,
)
RUN_BY = {
    "README.md": "tests/test_wheel.py",
    "docs/how-to/migrate-from-another-library.md": "tests/other_libraries",
    "docs/how-to/test-your-app.md": "tests/test_testing.py",
    "docs/how-to/use-with-other-packages.md": "tests/ecosystem/suite/test_page.py",
    "docs/reference/engine.md": "tests/test_docs.py",
    "docs/reference/settings.md": "tests/test_docs.py",
    "docs/tutorial/encrypted-patients.md": "tests/test_tutorial.py",
}
"""Pages with blocks that are not marked, and what runs these."""

FOREIGN_COMMANDS = {"demo_save", "demo_show"}  # Of testproject, which the tutorial's own test runs.


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> Iterator[tuple[int, str, bool]]:
    """Yield the line, the code and whether it is to be run, of a page's blocks in one of ``languages``."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if match["language"] in languages:
            indent = len(match["indent"])
            code = "".join(line[indent:] for line in match["code"].splitlines(keepends=True))
            before, after = unseen(match["before"] or ""), unseen(match["after"])
            line = text.count("\n", 0, match.start("code")) + 1
            if before or after:
                line, code = line - 1 - before.count("\n"), f"{before}\n{code}{after}"
            yield line, code, bool(match["run"])


def unseen(lines: str) -> str:
    return re.sub("^ *% ", "", lines, flags=re.MULTILINE)


@pytest.fixture
def models_of_the_pages(transactional_db: None) -> Iterator[dict[str, Any]]:
    """The models that pages speak of as their reader's own, with their tables."""
    with isolate_apps("tests.testapp"):

        class Patient(models.Model):
            name = models.CharField(max_length=200)
            ssn = fields.EncryptedTextField(null=True)
            record = fields.EncryptedJSONField(null=True)

            class Meta:
                app_label = "testapp"
                db_table = "testapp_patient_of_the_pages"

        class Visit(models.Model):
            patient = models.ForeignKey(Patient, models.CASCADE)
            remark = fields.EncryptedTextField(null=True)

            class Meta:
                app_label = "testapp"
                db_table = "testapp_visit_of_the_pages"

        with connection.schema_editor() as editor:
            editor.create_model(Patient)
            editor.create_model(Visit)
        yield {"Patient": Patient, "Visit": Visit}
        with connection.schema_editor() as editor:
            editor.delete_model(Visit)
            editor.delete_model(Patient)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_compiles(page: Path) -> None:
    for line, code, _ in blocks(page, "python"):
        compile("\n" * (line - 1) + code, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", [page for page in PAGES if "% run\n" in page.read_text()], ids=name_of)
def test_python_that_is_marked_runs(page: Path, settings: Settings, models_of_the_pages: dict[str, Any]) -> None:
    settings.ASHERAH = as_asherah(METASTORE="memory")
    namespace: dict[str, Any] = {"__name__": "tests.testapp.docs", "settings": settings, **models_of_the_pages}
    for line, code, run in blocks(page, "python"):
        if run:
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), namespace)


def test_python_that_is_not_marked_is_run_by_another_test() -> None:
    pages = {name_of(page) for page in PAGES if not all(run for _, _, run in blocks(page, "python"))}
    assert pages == RUN_BY.keys()
    assert [test for test in RUN_BY.values() if not (ROOT / test).exists()] == []


def command_lines(page: Path) -> Iterator[tuple[str, list[str]]]:
    for _, code, _ in blocks(page, "console", "shell", "sh", "bash", "text", "crontab"):
        for line in code.replace("\\\n", " ").splitlines():
            _, found, call = line.partition("manage.py ")
            if found:
                words = shlex.split(call, comments=True)
                ends = [place for place, word in enumerate(words) if word in ("&&", "||", "|", ";", ">", ">>", "2>&1")]
                yield line, words[: ends[0]] if ends else words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist_and_take_what_is_shown(page: Path) -> None:
    for line, (name, *arguments) in command_lines(page):
        if name in FOREIGN_COMMANDS:
            continue
        command = load_command_class(get_commands()[name], name)
        try:
            command.create_parser("manage.py", name).parse_args(arguments)
        except SystemExit:
            pytest.fail(f"manage.py takes no such arguments: {line}")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_json_is_json(page: Path) -> None:
    for _, code, _ in blocks(page, "json"):
        json.loads(code)


def test_the_policies_allow_the_application_exactly_the_kms_actions_that_it_calls() -> None:
    key_policy, role_policy, _ = [json.loads(code) for _, code, _ in blocks(DOCS / "how-to" / "set-up-aws.md", "json")]
    (uses,) = [statement for statement in key_policy["Statement"] if statement["Sid"] == "ApplicationUses"]
    (role,) = role_policy["Statement"]
    assert uses["Action"] == role["Action"] == sorted(f"kms:{operation}" for operation in aws.METHODS)


def terms(*pages: str | Path) -> set[str]:
    """Return everything that the pages of the reference set in code, without its quotes and arguments."""
    found: set[str] = set()
    for page in pages:
        text = (REFERENCE / page).read_text(encoding="utf-8")
        found |= {term.strip("\"'") for term in re.findall(r"`+([^`\n]+)`+", text)}
    return found


def test_every_setting_and_option_is_documented() -> None:
    providers = [registry.find(name) for registry in (conf.KMS, conf.METASTORE) for name in registry.paths]
    options = {name for provider in providers for name in provider.options or ()}
    assert {*conf.SETTING_NAMES, *conf.KMS.paths, *conf.METASTORE.paths} | options <= terms("settings.md")


def test_the_settings_page_shows_the_defaults_as_they_are() -> None:
    (_, code, _) = next(blocks(REFERENCE / "settings.md", "python"))
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    shown = namespace["ASHERAH"]
    assert shown.keys() == set(conf.SETTING_NAMES)
    for name in ("SERVICE", "PRODUCT", "REGIONS", "PREFERRED_REGION"):
        del shown[name]
    defaults = conf.Settings(service="x", product="x")
    assert shown == {name: getattr(defaults, name.lower()) for name in shown}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if 'ASHERAH = {\n    "SERVICE"' in page.read_text()], ids=name_of
)
def test_the_settings_that_are_shown_are_right(page: Path, settings: Settings) -> None:
    for code in [code for _, code, _ in blocks(page, "python") if "ASHERAH = {" in code]:
        namespace: dict[str, Any] = {}
        exec(code, namespace)
        settings.ASHERAH = namespace["ASHERAH"]
        assert list(conf.find_problems()) == []


def test_the_protocols_are_shown_as_the_engine_has_them() -> None:
    shown: dict[str, Any] = {}
    for _, code, run in blocks(REFERENCE / "engine.md", "python"):
        if not run:
            exec(code, vars(interfaces).copy(), shown)
    assert shown.keys() == {"KeyManagementService", "Metastore", "StoresMany"}
    for name, protocol in shown.items():
        assert signatures(protocol) == signatures(getattr(interfaces, name))


def signatures(protocol: type) -> dict[str, str]:
    """Return the signature of each method, with types as they are written."""
    methods = {name: member for name, member in vars(protocol).items() if inspect.isfunction(member)}
    return {
        name: str(inspect.signature(method, eval_str=True))
        for name, method in methods.items()
        if not name.startswith("_")
    }


def test_every_argument_of_the_storage_is_documented() -> None:
    arguments = set(inspect.signature(EncryptedStorage.__init__).parameters) - {"self"}
    assert arguments <= terms("../how-to/encrypt-files.md")


def test_every_attribute_of_the_view_is_documented() -> None:
    own = {name for name in vars(EncryptedFileView) if not name.startswith("_")} - {"get", "as_view"}
    own = {name if not callable(getattr(EncryptedFileView, name)) else f"{name}(" for name in own}
    written = (REFERENCE / "views.md").read_text(encoding="utf-8")
    assert own - {"http_method_names"} >= {"model", "field", "as_attachment", "get_queryset("}
    assert [name for name in own - {"http_method_names"} if f"`{name}" not in written] == []


def test_every_argument_and_method_of_the_copy_is_documented() -> None:
    arguments = set(inspect.signature(ColumnCopy.__init__).parameters) - {"self"}
    methods = {f"{name}(" for name, member in vars(ColumnCopy).items() if callable(member) and not name.startswith("_")}
    told = terms("copying.md")
    assert arguments <= told
    assert [method for method in methods if not any(term.startswith(method) for term in told)] == []


def test_every_migration_operation_is_documented() -> None:
    names = {
        name
        for name, member in vars(operations).items()
        if inspect.isclass(member) and member.__module__ == operations.__name__ and not name.startswith("_")
    }
    assert names == {"EncryptField", "DecryptField", "AlterRecordFormat"}
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_signal_is_documented() -> None:
    assert {name for name, member in vars(signals).items() if isinstance(member, Signal)} <= terms("signals.md")


def subclasses(base: type) -> Iterator[type]:
    yield base
    for child in base.__subclasses__():
        yield from subclasses(child)


def test_every_exception_is_documented() -> None:
    ours = {error.__name__ for error in subclasses(exceptions.AsherahError) if error.__module__ == exceptions.__name__}
    assert ours <= terms("exceptions.md")


def test_every_metric_and_its_attributes_are_documented() -> None:
    source = (ROOT / "django_asherah" / "otel.py").read_text(encoding="utf-8")
    names = set(re.findall(r"django_asherah\.[a-z_]+(?:\.[a-z_]+)?(?=\",)", source)) - {"django_asherah.envelope"}
    assert names == {"django_asherah.kms.duration", "django_asherah.operations", "django_asherah.key_cache.lookups"}
    attributes = {"cloud.region", "operation", "outcome", "error.type", "level"}
    for page in (REFERENCE / "observability.md", DOCS / "how-to" / "monitor.md"):
        assert names | attributes <= terms(page)


def test_health_is_documented() -> None:
    assert {*(field.name for field in dataclasses.fields(health.Health)), "ok"} <= terms("observability.md")


def test_every_check_is_documented() -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "django_asherah").rglob("*.py"))
    ids = set(re.findall(r"asherah\.[EW]\d{3}", source))
    ids |= {f"asherah.{id}" for id in re.findall(r"\"([EW]\d{3})\"", source)}
    assert len(ids) >= 40
    assert ids <= terms("checks.md")


def test_every_field_and_its_options_are_documented() -> None:
    options = set(inspect.signature(fields.EncryptedFieldMixin.__init__).parameters) - {"self", "args", "kwargs"}
    assert {*fields.__all__, *options} <= terms("fields.md")


def commands() -> Iterator[tuple[str, Any]]:
    for name, app in get_commands().items():
        if app == "django_asherah":
            yield name, load_command_class(app, name).create_parser("manage.py", name)


def test_every_command_and_each_of_its_options_are_documented() -> None:
    text = (REFERENCE / "commands.md").read_text(encoding="utf-8")
    of_django = set(BaseCommand().create_parser("manage.py", "x")._option_string_actions)
    shared, *sections = re.split(r"^## `(asherah_\w+)`$", text, flags=re.MULTILINE)
    documented = dict(zip(sections[::2], sections[1::2], strict=True))
    for name, parser in commands():
        options = set(parser._option_string_actions) - of_django
        missing = {option for option in options if not re.search(rf"`{option}(?![\w-])", documented[name] + shared)}
        assert not missing, f"{name}: {missing}"


VALUES = DOCS / "explanation" / "values.md"


def test_every_configuration_of_a_deployment_is_shown_and_run() -> None:
    files = {file.name for file in (DOCS / "deploying").iterdir() if file.is_file()}
    page = (DOCS / "how-to" / "deploy.md").read_text(encoding="utf-8")
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests" / "deploy").glob("*.py"))
    assert len(files) >= 18
    assert {file for file in files if f"{{literalinclude}} ../deploying/{file}\n" not in page} == set()
    assert {file for file in files if f'{file}"' not in tests} == set()


MAPS = [ROOT / "CONTRIBUTING.md", DOCS / "explanation" / "map.md", VALUES]


def files_named(page: Path) -> list[str]:
    return re.findall(r"`([\w./]+/[\w./]*|\w+\.(?:py|md|json))`", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", MAPS, ids=name_of)
def test_every_file_that_the_map_names_exists(page: Path) -> None:
    names = files_named(page)
    assert len(names) >= 20
    assert [name for name in names if not any((at / name).exists() for at in (ROOT, ROOT / "django_asherah"))] == []


def test_the_map_leaves_out_no_file_that_a_value_goes_through() -> None:
    named = {*files_named(DOCS / "explanation" / "map.md"), *files_named(VALUES)}
    files = {f"fields/{file.name}" for file in (ROOT / "django_asherah" / "fields").glob("*.py")}
    assert files - named == {f"fields/{name}.py" for name in ("generic", "interfaces", "plain", "utf8")}


def test_every_function_and_class_on_the_way_of_a_value_is_in_a_file_that_the_page_names() -> None:
    text = VALUES.read_text(encoding="utf-8")
    files = [ROOT / "django_asherah" / name for name in files_named(VALUES) if name.endswith(".py")]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    functions = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    named = set(re.findall(r"`(\w+)\(", text)) - set(dir(models.QuerySet)) - set(dir(models.Model))
    assert len(named) >= 20
    assert named - functions == set()
    assert set(re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", text)) - classes == {"FieldError"}


def test_every_test_that_a_page_names_exists() -> None:
    tests = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    defined = set(re.findall(r"^ *(?:async )?def (test_\w+)", tests, re.MULTILINE))
    named = {
        (name_of(page), name)
        for page in [*PAGES, ROOT / "CONTRIBUTING.md"]
        for name in re.findall(r"`(?:[\w/]+\.py::)?(?:\w+::)?(test_\w+)`", page.read_text(encoding="utf-8"))
    }
    assert len(named) >= 40
    assert {(page, name) for page, name in named if name not in defined} == set()


BANNED = re.compile(
    r"\bin(to)? hand\b|\bmend(s|ed)?\b|\bput right\b|thousand million|\bsaid so\b|\b(he|his|him)\b|\bfor ever\b"
    r"|\bin clear\b|\bas ever\b[.,;:]|\bas everywhere\.|\b(one|once|calls?) a (key|partition|process|region|value)\b",
    re.IGNORECASE,
)
"""Phrases that read as translated. Say "cached", "fix", "billion", "reported", "they", "per region"."""


def test_one_voice() -> None:
    files = [*PAGES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "django_asherah").rglob("*.py"))]
    texts = {name_of(file): " ".join(file.read_text(encoding="utf-8").split()) for file in files}
    found = {name: [match[0] for match in BANNED.finditer(text)] for name, text in texts.items()}
    assert {name: phrases for name, phrases in found.items() if phrases} == {}
