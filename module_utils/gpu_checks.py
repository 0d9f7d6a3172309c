# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of the GPUs: one reading, several answers. Standard library only, Python 3.9+."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.module_utils.gpu.facts import gather
from ansible.module_utils.gpu.host import ADMIN_PATH, Host
from ansible.module_utils.gpu.ready import verdicts

KIND = "gpu"


def gpu_answers(check: dict[str, Any]) -> list[dict[str, Any]]:
    """Answers as `checks.examine` gives them, with ids gpu.driver, gpu.gpus and so on; see gpu/ready.py."""
    started = time.monotonic()
    facts = gather(Host(check.get("root", "/"), f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"))
    seconds = round(time.monotonic() - started, 3)
    return [
        {
            "id": f"{check['id']}.{row.aspect}",
            "ok": row.ok,
            "detail": row.detail,
            "remedy": "" if row.ok else row.remedy,
            "seconds": seconds,
        }
        for row in verdicts(facts, check["expected"])
    ]
