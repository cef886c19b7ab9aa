"""The provider ``dynamodb``: key records in a DynamoDB table."""

from __future__ import annotations

import os
from collections.abc import Iterator

from django_asherah.conf import Settings
from django_asherah.envelope.interfaces import Listener, Metastore
from django_asherah.problems import Problem, unsafe_endpoints
from django_asherah.providers import Provider


def _make(settings: Settings, on_event: Listener) -> Metastore:
    from django_asherah.metastores.dynamodb import DynamoDBMetastore

    return DynamoDBMetastore(**settings.metastore_options)


def _find_deploy_problems(settings: Settings) -> Iterator[Problem]:
    urls = {
        "ASHERAH['METASTORE_OPTIONS']['endpoint_url']": settings.metastore_options.get("endpoint_url"),
        "The environment variable AWS_ENDPOINT_URL_DYNAMODB": os.environ.get("AWS_ENDPOINT_URL_DYNAMODB"),
    }
    yield from unsafe_endpoints("asherah.E023", "DynamoDB", urls.items())


PROVIDER = Provider(
    make=_make,
    options=("table_name", "region", "endpoint_url", "connect_timeout", "read_timeout", "session"),
    find_deploy_problems=_find_deploy_problems,
)
