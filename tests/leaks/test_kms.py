"""The KEK passes through boto3 in clear. It must not stay in a log, an error, or the frames of one."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from django_asherah.envelope.aead import Cipher
from django_asherah.exceptions import AsherahError, InvalidRecordError, KMSError
from django_asherah.kms.aws import AwsKMS
from django_asherah.kms.kek import decode_wrapped
from tests.kms.conftest import Kit, kit  # noqa: F401 - a fixture
from tests.leaks.search import holding_frames, holds
from tests.moto_servers import answering

KEK = b"K3K-canary-0123456789abcdef-KEK!"
SYSTEM_KEY = b"5K-canary-fedcba9876543210-SYSK!"
ARNS = {region: f"arn:aws:kms:{region}:111122223333:key/x" for region in ("us-west-2", "us-east-1")}


class Client:
    """A KMS of one region; it knows one KEK, and some of its actions fail."""

    def __init__(self, fails: tuple[str, ...] = (), kek: bytes = KEK, blob: bytes = b"wrapped") -> None:
        self._fails, self._kek, self._blob = fails, kek, blob

    def _do(self, action: str, answer: dict[str, Any], **request: Any) -> dict[str, Any]:
        if action in self._fails:
            raise EndpointConnectionError(endpoint_url="https://kms", error=action) from OSError(str(request))
        return answer

    def generate_data_key(self, **request: Any) -> dict[str, Any]:
        return self._do("generate", {"Plaintext": self._kek, "CiphertextBlob": self._blob}, **request)

    def encrypt(self, **request: Any) -> dict[str, Any]:
        return self._do("encrypt", {"CiphertextBlob": self._blob}, **request)

    def decrypt(self, **request: Any) -> dict[str, Any]:
        return self._do("decrypt", {"Plaintext": self._kek}, **request)


def aws(west: Client, east: Client) -> AwsKMS:
    clients = {"us-west-2": west, "us-east-1": east}

    class Session:
        def client(self, service: str, region_name: str, **options: Any) -> Client:
            return clients[region_name]

    return AwsKMS(ARNS, "us-west-2", session=Session())


def wrapped() -> bytes:
    return aws(Client(), Client()).encrypt_key(bytearray(SYSTEM_KEY))


def other_key() -> bytes:
    """Return a system key that another KEK seals, though these regions unwrap KEKs for it."""
    document = json.loads(wrapped())
    document["encryptedKey"] = base64.b64encode(Cipher(bytes(32)).seal(SYSTEM_KEY)).decode()
    return json.dumps(document).encode()


FAILURES: dict[str, tuple[type[AsherahError], Callable[[], Any]]] = {
    "too long to store": (
        InvalidRecordError,
        lambda: aws(Client(blob=b"x" * 6144), Client(blob=b"x" * 6144)).encrypt_key(bytearray(SYSTEM_KEY)),
    ),
    "no data key": (
        KMSError,
        lambda: aws(Client(("generate",)), Client(("generate",))).encrypt_key(bytearray(SYSTEM_KEY)),
    ),
    "the KEK does not open it": (KMSError, lambda: aws(Client(), Client()).decrypt_key(other_key())),
    "in one region": (KMSError, lambda: aws(Client(), Client()).decrypt_key_in("us-east-1", other_key())),
    "re-wrapped by a region that can't": (
        KMSError,
        lambda: aws(Client(), Client(("encrypt", "decrypt"))).rewrap(wrapped()),
    ),
    "re-wrapped by no region": (
        KMSError,
        lambda: aws(Client(("encrypt",)), Client(("encrypt", "decrypt"))).rewrap(other_region(wrapped())),
    ),
    "re-wrapped from an old ARN that does not open it": (
        KMSError,
        lambda: aws(Client(), Client()).rewrap(other_key(), old_master_keys=list(ARNS.values())),
    ),
    "re-wrapped from an old ARN that fails": (
        KMSError,
        lambda: aws(Client(("decrypt",)), Client(("decrypt",))).rewrap(wrapped(), old_master_keys=list(ARNS.values())),
    ),
}


def other_region(blob: bytes) -> bytes:
    return blob.replace(ARNS["us-west-2"].encode(), b"arn:aws:kms:us-west-2:111122223333:key/old")


@pytest.mark.parametrize("name", FAILURES)
def test_no_error_holds_a_key(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    error, fail = FAILURES[name]
    with pytest.raises(error) as caught:
        fail()
    assert holding_frames(caught.value, KEK) == []
    assert holds(f"{caught.value!r} {vars(caught.value)} {caplog.text}", KEK, SYSTEM_KEY) == []


@pytest.mark.slow
def test_botocore_logs_no_key(kit: Kit, caplog: pytest.LogCaptureFixture) -> None:  # noqa: F811
    """At DEBUG it would write the whole body of every request and response."""
    caplog.set_level(logging.DEBUG)
    for name in ("botocore", "boto3", "urllib3", "botocore.endpoint", "botocore.parsers"):
        caplog.set_level(logging.DEBUG, name)
    kms = kit.kms()
    blob = kms.encrypt_key(bytearray(SYSTEM_KEY))
    assert kms.decrypt_key(blob) == SYSTEM_KEY
    assert kit.kms().rewrap(blob) == blob
    kms.check_wrap("us-east-1")
    entry = decode_wrapped(blob).kms_keks[0]
    written = caplog.text
    assert "botocore.auth" in written
    kek = kit.servers[entry.region].client.decrypt(KeyId=entry.arn, CiphertextBlob=entry.encrypted_kek)["Plaintext"]
    assert holds(written, kek, SYSTEM_KEY) == []
    assert holds(caplog.text, kek), "what the application itself asks of botocore is logged as ever"


@pytest.mark.slow
def test_an_answer_that_is_not_understood_is_not_repeated(
    kit: Kit,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    said = json.dumps({"Plaintext": base64.b64encode(KEK).decode()}).encode()
    for status, body in ((502, b"you said: " + said), (200, said), (200, said[:-1]), (400, said)):
        with answering(status, body) as server, pytest.raises(KMSError) as caught:
            kit.kms({"us-west-2": server.url, "us-east-1": server.url}).encrypt_key(bytearray(SYSTEM_KEY))
        assert holds(f"{caught.value!r} {vars(caught.value)} {caplog.text}", KEK) == []
        assert holding_frames(caught.value, KEK) == []
