"""A gathering in a process of its own, to be killed:  python -m tests.support.gather_child PARAMETERS.json"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tests.conftest  # noqa: F401 - puts our shared code where modules look for it

if __name__ == "__main__":
    from library.gather import run

    run(json.loads(Path(sys.argv[1]).read_text()), check=False)
