"""The doctor's checks of what stands on the driver; each looks at one thing and says (ok, detail)."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Tuple

from .cdi import faults
from .facts import gather
from .host import ADMIN_PATH, Host

Check = Dict[str, Any]
Answer = Tuple[bool, str]
SECONDS = 60


def running() -> Host:
    """The running system."""
    return Host("/", f"{os.environ.get('PATH', '')}:{ADMIN_PATH}", SECONDS)


def cdi(check: Check) -> Answer:
    """Whether the CDI specification is there, is for the loaded driver and names every device, the planned ones too."""
    facts = gather(running())
    wrong = faults(facts, check["devices"])
    paths = ", ".join(spec["path"] for spec in facts["toolkit"]["cdi"])
    good = f"{paths} names all devices of driver {facts['driver']['loaded']}, {len(check['devices'])} are planned"
    return not wrong, "; ".join(wrong) or good


def one_version(check: Check) -> Answer:
    """Whether all packages are installed, in one version."""
    host = running()
    debian, rpm = "-f=${Package} ${Version} ${db:Status-Status}\n", "--qf=%{NAME} %{VERSION}-%{RELEASE} installed\n"
    answer = host.run("dpkg-query", "-W", debian, *check["packages"]) or host.run("rpm", "-q", rpm, *check["packages"])
    words = [line.split() for line in (answer.text if answer else "").splitlines()]
    rows = {row[0]: row[1] for row in words if len(row) == 3 and row[2] == "installed"}
    missing = [name for name in check["packages"] if name not in rows]
    if missing:
        return False, f"not installed: {', '.join(missing)}"
    if len(set(rows.values())) > 1:
        return False, f"different versions: {', '.join(f'{name} {version}' for name, version in sorted(rows.items()))}"
    return True, f"{len(rows)} packages in version {next(iter(rows.values()))}"


def mig(check: Check) -> Answer:
    """Whether the GPUs are divided as declared."""
    answer = running().run("nvidia-mig-parted", "assert", "-f", check["path"], "-c", "redoubt")
    if answer is None:
        return False, "nvidia-mig-parted is not installed"
    return answer.code == 0, answer.text.strip()[-300:] or f"nvidia-mig-parted assert ended with {answer.code}"


GPU_KINDS: Dict[str, Callable[[Check], Answer]] = {"cdi": cdi, "one_version": one_version, "mig": mig}
