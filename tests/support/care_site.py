"""A store with a source, releases and the folder that node exporter reads, for the tests of its care."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.inventory import METRICS, read_inventory
from ansible.module_utils.artifacts.ledger import Ledger
from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.reproof import Report, reprove
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.sources import Folder

from tests.support.weight_trees import REVISIONS, model, write_tree

SHARED = {"config.json": b'{"hidden_size": 8}', "shared.dat": b"s" * 100_000}
FIRST = {**SHARED, "own.dat": b"1" * 50_000}
SECOND = {**SHARED, "own.dat": b"2" * 60_000}
ONE, TWO = model(FIRST, name="one"), model(SECOND, name="two")
LATER = model(SECOND, name="one", revision=REVISIONS[1])


class Site:
    """A source with two models that share files, a store, releases, and the folder that node exporter reads."""

    def __init__(self, root: Path) -> None:
        self.source = root / "source"
        self.store = Store(root / "models", root / "state")
        self.releases = root / "opt"
        self.metrics = root / "textfile" / METRICS
        self.metrics.parent.mkdir()
        self.said: list[str] = []
        write_tree(self.source / "one", FIRST)
        write_tree(self.source / "two", SECOND)

    def bring(self, *wanted: dict[str, Any], **settings: Any) -> tuple[bool, list[Outcome]]:
        given = {"releases": self.releases, "metrics_file": self.metrics.with_name("redoubt_weights.prom"), **settings}
        models = parse_models(list(wanted))
        result: tuple[bool, list[Outcome]] = present(self.store, models, [Folder(self.source)], Settings(**given))
        return result

    def reprove(self) -> Report:
        report: Report = reprove(self.store, self.releases, self.metrics, self.said.append)
        return report

    def tree(self, name: str, revision: str = REVISIONS[0]) -> Path:
        return Path(self.store.models) / name / revision[:12]

    def inventory(self) -> dict[str, Any]:
        found: dict[str, Any] = read_inventory(self.store.state)
        return found

    def figures(self) -> dict[str, float]:
        rows = [line.rsplit(" ", 1) for line in self.metrics.read_text().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    def rot(self, path: Path, when: float | None = None) -> None:
        """Flip a bit as a disk does: size, times and inode are what the ledger says, for it is told the new ctime."""
        ledger = Ledger.read(self.store.ledger_file)
        before = path.stat()
        proof = ledger.proof(before)
        assert proof is not None
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(0o444)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        ledger.note(path.stat(), proof.sha256, when or proof.when)
        ledger.write()

    def release(self, number: int, *trees: Path) -> None:
        """Write what the module `release` writes of a release's weights."""
        folder = self.releases / "releases" / str(number)
        folder.mkdir(parents=True)
        engines = [{"weights_path": str(tree)} for tree in trees]
        (folder / "manifest.json").write_text(json.dumps({"number": number, "engines": engines}))
