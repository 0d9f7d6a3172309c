"""One small model, its source, and the module's own work on a store on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present, verified
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.staging import How
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.choose import make_sources
from ansible.module_utils.fetch.http import Network
from ansible.module_utils.fetch.line import Limits

from tests.support.weight_trees import REVISIONS, model, write_tree

FILES = {"config.json": b"{}", "shards/1.dat": b"x" * 100_000, "shards/2.dat": b"y" * 50_000}
OTHER = {**FILES, "shards/2.dat": b"z" * 50_000}


class Site:
    """A source folder, a models' directory, and the module's work on them."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source"
        self.store = Store(root / "models", root / "state")
        self.address = f"file://{self.source}"
        write_tree(self.source / "tiny", FILES)

    def bring(
        self, wanted: list[dict[str, Any]] | None = None, address: str | None = None, **settings: Any
    ) -> tuple[bool, list[Outcome]]:
        models = parse_models([model(FILES)] if wanted is None else wanted)
        sources = make_sources([address or self.address], "weights_source", Network())
        how = How(Limits(retries=3, first_pause=0.01))
        result: tuple[bool, list[Outcome]] = present(self.store, models, sources, Settings(how=how, **settings))
        return result

    def verdict(self, deep: bool = False) -> dict[str, Any]:
        (found,) = verified(self.store, parse_models([model(FILES)]), Settings(), deep)
        answer: dict[str, Any] = found
        return answer

    @property
    def published(self) -> Path:
        return Path(self.store.models, "tiny", REVISIONS[0][:12])

    def contents(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.published)): path.read_bytes()
            for path in sorted(self.published.rglob("*"))
            if path.is_file()
        }

    def tamper(self, path: str, change: Callable[[bytearray], None]) -> None:
        """Change a published file in place and put its time back, as a broken disk or a careful intruder would."""
        target = self.published / path
        status = target.stat()
        data = bytearray(target.read_bytes())
        change(data)
        target.chmod(0o644)
        target.write_bytes(data)
        target.chmod(0o444)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
