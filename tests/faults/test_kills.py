"""``kill -9`` at every step of an operation on keys loses no acknowledged write and leaves nothing that can't open."""

from __future__ import annotations

import pytest

from tests.faults.processes import environment, run_module

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

CONFIGURATION = {
    "KMS": "tests.faults.seams.make_kms",
    "KMS_OPTIONS": {"arns": {"one": "arn-1", "two": "arn-2"}},
    "METASTORE": "tests.faults.seams.make_metastore",
}

OPERATIONS = [
    "key creation",
    "key creation in a transaction",
    "rotation",
    "revocation",
    "re-wrap",
    "re-encryption",
]

FEWEST = 20
"""Seams at the least: with fewer, the wrappers would not be in place."""


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_process_killed_at_any_seam_loses_nothing(shared_alias: str, operation: str) -> None:
    output = run_module("killing", operation, env=environment(shared_alias, CONFIGURATION))

    print(f"{operation}: killed at {output.strip()} seams, one after the other")
    assert int(output) >= FEWEST
