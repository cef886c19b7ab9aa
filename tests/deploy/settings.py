"""Settings of the servers under test: those of the fault tests, and the fragments of docs/deploying that are named."""

from __future__ import annotations

import runpy

from tests.faults.settings import *  # noqa: F403
from tests.faults.settings import env
from tests.deploy.servers import DEPLOYING

for fragment in env.list("DEPLOY_SETTINGS", default=[]):
    shown = runpy.run_path(str(DEPLOYING / fragment))
    globals().update({name: value for name, value in shown.items() if name.isupper()})
