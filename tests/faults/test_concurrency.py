"""Many processes and threads at once: races for the first keys, and load while keys are rotated."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from django_asherah.envelope.session import SessionFactory
from django_asherah.kms.aws import AwsKMS
from django_asherah.metastores.database import DatabaseMetastore
from django_asherah.models import EncryptionKey
from tests.databases import VENDOR
from tests.faults.processes import environment, on_aws, run_module
from tests.faults.proxy import Proxies
from tests.moto_servers import session

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(VENDOR == "sqlite", reason="SQLite lets one process write at a time"),
]

HOUSEWORK = [
    "rotated",
    "re-encrypted",
    "intermediate keys revoked",
    "system keys revoked",
    "re-wrapped for fewer regions",
    "re-wrapped for all",
]
PROCESSES, THREADS, PARTITIONS = 8, 16, 3


def test_eight_processes_of_sixteen_threads_make_one_key_each_and_fail_no_caller(proxies: Proxies) -> None:
    output = run_module(
        "race", str(PROCESSES), str(THREADS), str(PARTITIONS), env=environment("default", on_aws(proxies))
    )
    written = json.loads(output)

    assert [line for line in written if line[0] == "error"] == []
    assert len(written) == PROCESSES * THREADS * PARTITIONS
    assert Counter(EncryptionKey.objects.values_list("key_id", flat=True)) == {
        "_SK_suite_tests": 1,
        **{f"_IK_p{number}_suite_tests": 1 for number in range(PARTITIONS)},
    }

    counts = proxies.taken_counts()
    wraps = counts["us-west-2"].pop("GenerateDataKey")
    unwraps = counts["us-west-2"].pop("Decrypt", 0)
    assert 1 <= wraps <= PROCESSES
    # Who makes a key opens it in every region once. Who made the one that stands has it in hand; each of the others has
    # unwrapped it once.
    assert unwraps == wraps + PROCESSES - 1
    proven = {"Encrypt": wraps, "Decrypt": wraps}
    assert counts == {"us-west-2": {}, "us-east-1": proven, "eu-central-1": proven}

    reader = SessionFactory("suite", "tests", DatabaseMetastore("default"), make_kms(proxies))
    assert [reader.get_session(name).decrypt(record).decode() for name, _, record in written] == [
        text for _, text, _ in written
    ]


def test_under_load_no_request_fails_and_no_update_is_lost_whatever_is_done_to_the_keys(proxies: Proxies) -> None:
    asherah = on_aws(proxies, REVOKE_CHECK_INTERVAL=1)
    report = json.loads(run_module("load", env=environment("default", asherah)))

    print(report)
    assert report["errors"] == report["house"] == report["lost"] == report["bad"] == []
    assert set(report["requests"]) == {"create", "update", "add", "read"}
    assert min(report["requests"].values()) >= 16 * 20
    assert [name for name in HOUSEWORK if not report["housework"][name]] == []


def make_kms(proxies: Proxies) -> AwsKMS:
    arns = {region: proxy.arn for region, proxy in proxies.by_region.items()}
    return AwsKMS(arns, proxies.regions[0], endpoint_urls=proxies.urls, session=session(), read_timeout=30)
