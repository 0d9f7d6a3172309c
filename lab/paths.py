"""Where the lab keeps what it makes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("REDOUBT_CACHE") or REPOSITORY / ".cache").resolve() / "lab"
#: The "mounted medium": image archives and weights, bound read-only at /media/redoubt in each host.
MEDIA = CACHE / "media"
#: Small records: host addresses, keys, what was built from which inputs.
STATE = CACHE / "state"
#: Archives of the host images, which only the outer engine needs.
HOST_IMAGES = CACHE / "host-images"
#: Scratch space of builds; empty when no build runs.
WORK = CACHE / "work"
#: Digests of everything on the medium, in the shape that the inventories include.
LOCK_FILE = CACHE / "lock.yml"
#: What tells this checkout's hosts from those of another one on the same machine.
CHECKOUT = hashlib.sha256(str(CACHE).encode()).hexdigest()[:8]
