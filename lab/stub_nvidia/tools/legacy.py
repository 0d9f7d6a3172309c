"""Programs of the toolkit that would put GPUs into containers without CDI: not played, and not silently."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> int:
    """Refuse."""
    name = Path(sys.argv[0]).name
    print(f"stub {name}: only CDI is played here: use --device nvidia.com/gpu=...", file=sys.stderr)
    return 1
