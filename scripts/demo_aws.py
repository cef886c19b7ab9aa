"""The main job with two KMS regions on loopback, and then without the preferred one."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.demo import manage
from tests.moto_servers import MotoRegion, moto_region

REGIONS = ("us-west-2", "us-east-1")


def main() -> None:
    """Save with both regions up, kill the preferred one, and read everything again from a fresh process."""
    with (
        tempfile.TemporaryDirectory() as folder,
        moto_region(REGIONS[0]) as west,
        moto_region(REGIONS[1]) as east,
    ):
        variables = _settings(folder, [west, east])
        manage("migrate", "--verbosity=0", **variables)
        manage("demo_save", **variables)
        manage("demo_show", **variables)
        print(f"\nKilling the preferred region, {west.region}, and reading everything again …", flush=True)
        west.kill()
        manage("demo_show", **variables)


def _settings(folder: str, servers: list[MotoRegion]) -> dict[str, str]:
    return {
        "DATABASE_URL": f"sqlite:///{folder}/clinic.sqlite3",
        "ASHERAH_REGIONS": ",".join(f"{server.region}={server.arn}" for server in servers),
        "ASHERAH_PREFERRED_REGION": servers[0].region,
        "ASHERAH_ENDPOINT_URLS": ",".join(f"{server.region}={server.url}" for server in servers),
        # moto takes any credentials; boto3 wants some.
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
    }


if __name__ == "__main__":
    main()
