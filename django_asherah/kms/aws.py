"""AWS KMS: a master key in one region, and the KMS of several.

Source: ``go/appencryption/plugins/aws-v2/kms`` of godaddy/asherah and the AWS KMS API reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError, ConnectionClosedError, ConnectTimeoutError, ReadTimeoutError

from django_asherah.botoclient import BotoClient
from django_asherah.envelope.interfaces import Listener, ignore_events
from django_asherah.kms.master_key import Failure
from django_asherah.kms.multi_region import MultiRegionKMS
from django_asherah.kms.redaction import bodies_unlogged, redacted

METHODS = {
    "Decrypt": "decrypt",
    "DescribeKey": "describe_key",
    "Encrypt": "encrypt",
    "GenerateDataKey": "generate_data_key",
}
"""The KMS actions in use, each of which IAM must allow, and boto3's names for them."""

_REQUIRED = {"KeyState": "Enabled", "KeyUsage": "ENCRYPT_DECRYPT", "KeySpec": "SYMMETRIC_DEFAULT"}

_THROTTLED = frozenset({"ThrottlingException", "LimitExceededException", "RequestLimitExceeded"})
_TIMEOUTS = (ConnectTimeoutError, ReadTimeoutError)


class AwsMasterKey:
    """One KMS key, by its ARN. A :class:`~django_asherah.kms.master_key.MasterKey`."""

    def __init__(self, arn: str, client: BotoClient) -> None:
        self.name = arn
        self._client = client

    def make_kek(self) -> tuple[bytes, bytes]:
        """Return a new KEK, and the same wrapped: ``GenerateDataKey``."""
        answer = self._call("GenerateDataKey", KeySpec="AES_256")
        return answer.get("Plaintext"), answer.get("CiphertextBlob")

    def wrap(self, kek: bytes) -> bytes:
        """Return ``kek`` wrapped: ``Encrypt``."""
        blob: bytes = self._call("Encrypt", Plaintext=kek).get("CiphertextBlob")
        return blob

    def unwrap(self, wrapped: bytes) -> bytes:
        """Return the KEK: ``Decrypt``."""
        kek: bytes = self._call("Decrypt", CiphertextBlob=wrapped).get("Plaintext")
        return kek

    def find_problem(self) -> str:
        """Return why the key can't wrap KEKs: ``DescribeKey``."""
        key = self._call("DescribeKey")["KeyMetadata"]
        wrong = ((name, wanted) for name, wanted in _REQUIRED.items() if key.get(name) != wanted)
        return next((f"has {name} {key.get(name)!r} instead of {wanted!r}" for name, wanted in wrong), "")

    def explain(self, error: Exception) -> Failure:
        """Return what botocore's exception means."""
        if not isinstance(error, ClientError):
            is_closed, is_timeout = isinstance(error, ConnectionClosedError), isinstance(error, _TIMEOUTS)
            return Failure(type(error).__name__, is_passing=is_closed, is_timeout=is_timeout)
        code = error.response.get("Error", {}).get("Code")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return Failure(code or type(error).__name__, is_passing=status >= 500 or code in _THROTTLED)

    def redact(self, error: Exception) -> Exception:
        """Return botocore's exception without what may hold a KEK."""
        return redacted(error)

    def _call(self, action: str, **parameters: Any) -> Any:
        method = getattr(self._client.get(), METHODS[action])
        with bodies_unlogged():
            return method(KeyId=self.name, **parameters)


class AwsKMS(MultiRegionKMS):
    """Wraps system keys under one KMS key per region.

    Credentials come from boto3's own chain, or from the session given, and from nowhere else.

    Args:
        regions: maps each region to the ARN of its KMS key.
        preferred_region: asked first.
        connect_timeout, read_timeout: seconds that one address may take to accept a connection, and that an answer may
            pause. Their sum bounds each question to a region, whatever the client waits for.
        max_attempts: how often a region is asked that answers at once that it can't answer now.
        endpoint_urls: maps regions to URLs to use instead of AWS's own.
        session: a ``boto3.Session``, or a function without arguments that returns one.
        on_event: is told of every ``KMSCalled`` and ``RegionFailed``.
        clock: seconds from any fixed point.
    """

    def __init__(
        self,
        regions: Mapping[str, str],
        preferred_region: str,
        *,
        connect_timeout: float = 2.0,
        read_timeout: float = 3.0,
        max_attempts: int = 2,
        endpoint_urls: Mapping[str, str] | None = None,
        session: Any = None,
        on_event: Listener = ignore_events,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        urls = endpoint_urls or {}

        def make_key(region: str, arn: str) -> AwsMasterKey:
            client = BotoClient(
                "kms",
                session=session,
                region=region,
                endpoint_url=urls.get(region),
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                # botocore would try a region again after a timeout, when another could answer meanwhile.
                max_attempts=1,
            )
            return AwsMasterKey(arn, client)

        super().__init__(
            regions,
            preferred_region,
            make_key,
            deadline=connect_timeout + read_timeout,
            max_attempts=max_attempts,
            on_event=on_event,
            clock=clock,
        )
