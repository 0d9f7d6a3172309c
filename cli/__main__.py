"""Entry point of `python -m cli`."""

from __future__ import annotations

import os
import sys

from cli.main import main

# The launcher put the repository on PYTHONPATH for this process alone, not for what it starts.
_rest = os.environ.get("PYTHONPATH", "").split(os.pathsep)[1:]
if any(_rest):
    os.environ["PYTHONPATH"] = os.pathsep.join(_rest)
else:
    os.environ.pop("PYTHONPATH", None)

sys.exit(main(sys.argv[1:]))
