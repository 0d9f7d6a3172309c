"""The lock of a site from its depot, as the folder lock/ of a checkout. Run in the project's environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from locks import folder


def main(arguments: list[str]) -> int:
    """DEPOT SITE FOLDER: write the lock in force; say which files changed."""
    depot, site, target = Path(arguments[0]), arguments[1], Path(arguments[2])
    lock = json.loads((depot / "locks" / f"{site}.json").read_text(encoding="utf-8"))
    packages = depot / "sites" / site / "packages"
    indexes = {
        name: {item["path"]: (packages / name / item["path"]).read_text(encoding="utf-8") for item in row["indexes"]}
        for name, row in lock["platforms"].items()
    }
    changed = folder.write(target, lock, indexes)
    print(f"{target}: {len(changed)} files written")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
