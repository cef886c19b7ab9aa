"""What would be published, and the workflows that would publish it."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.databases import ROOT

pytestmark = pytest.mark.slow

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", folder, ROOT], check=True)
    return folder


@pytest.fixture(scope="module")
def metadata(built: Path) -> Message:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


@pytest.mark.slow
def test_twine_finds_nothing_wrong(built: Path) -> None:
    files = [str(file) for file in built.iterdir() if file.suffix in (".whl", ".gz")]
    assert len(files) == 2
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_package_and_nothing_else(built: Path) -> None:
    package = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "django_asherah").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert {"django_asherah/py.typed", "django_asherah/management/commands/asherah_rotate.py"} <= package
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == package
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - package == {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}


@pytest.mark.slow
def test_the_native_code_is_published_as_source_of_the_same_version(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "uv", "build", "--sdist", "--quiet", "--out-dir", tmp_path, ROOT / "native"]
    subprocess.run(command, check=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    assert sdist.name == f"django_asherah_native-{PROJECT['version']}.tar.gz"
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    own = {name for name in names if name and "egg-info" not in name}
    assert own == {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "rowcipher.c", "setup.cfg", "setup.py"}
    assert (ROOT / "native" / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


@pytest.mark.slow
def test_the_metadata_say_what_is_supported(metadata: Message) -> None:
    classifiers = metadata.get_all("Classifier") or []
    for name in ("Framework :: Django :: 5.2", "Framework :: Django :: 6.0", "Framework :: Django :: 6.1"):
        assert name in classifiers
    assert "Typing :: Typed" in classifiers
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"


@pytest.mark.slow
def test_what_is_optional_is_asked_for_by_its_extra_only(metadata: Message) -> None:
    requirements = metadata.get_all("Requires-Dist") or []
    extras: dict[str, set[str]] = {}
    for requirement in requirements:
        name = re.split(r"[\[<>=; ]", requirement)[0]
        extra = re.search(r"extra == '(\w+)'", requirement)
        extras.setdefault(extra[1] if extra else "", set()).add(name)
    assert extras == {
        "": {"django", "boto3", "cryptography", "msgspec", "tqdm"},
        "postgres": {"psycopg"},
        "mysql": {"mysqlclient"},
        "celery": {"celery"},
        "otel": {"opentelemetry-api"},
        "native": {"django-asherah-native"},
    }


def test_the_changelog_speaks_of_this_version() -> None:
    assert f"\n## {PROJECT['version']} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_say_which_tag_that_is(workflow: Path) -> None:
    uses = re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8"))
    assert uses
    for action in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


def test_only_the_publishing_job_may_ask_for_a_token() -> None:
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8"))
    assert release["permissions"] == {}
    assert {name: job["permissions"] for name, job in release["jobs"].items()} == {
        "build": {"contents": "read"},
        "publish": {"id-token": "write"},
    }
    # What builds runs code of others; what publishes only uploads what was built.
    assert [step["uses"].partition("@")[0] for step in release["jobs"]["publish"]["steps"]] == [
        "actions/download-artifact",
        "pypa/gh-action-pypi-publish",
    ]
    assert "secrets." not in str(release)


def test_the_matrix_is_what_the_classifiers_promise() -> None:
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8"))
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tests["permissions"] == {"contents": "read"}
    for job in ("databases", "django"):
        assert tests["jobs"][job]["strategy"]["matrix"]["python"] == promised
