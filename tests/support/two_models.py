"""Two models that share files, their source, and a store on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.manifest import parse_models
from ansible.module_utils.artifacts.models import present
from ansible.module_utils.artifacts.settling import Outcome, Settings
from ansible.module_utils.artifacts.store import Store
from ansible.module_utils.fetch.sources import Folder

from tests.support.weight_trees import REVISIONS, model, write_tree

SHARED = {"config.json": b"{}", "shared.dat": b"s" * 100_000}
FIRST = {**SHARED, "own.dat": b"1" * 50_000}
SECOND = {**SHARED, "own.dat": b"2" * 60_000}
ONE, TWO = model(FIRST, name="one"), model(SECOND, name="two")


@dataclass
class Site:
    """A source folder with the models, and a models' directory; `settings` are those of each run."""

    root: Path
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source = self.root / "source"
        self.store = Store(self.root / "models", self.root / "state")
        write_tree(self.source / "one", FIRST)
        write_tree(self.source / "two", SECOND)

    def bring(self, *wanted: dict[str, Any], **settings: Any) -> tuple[bool, list[Outcome]]:
        """Bring these models with the module's own code; tell whether anything changed, and what."""
        given = Settings(**{**self.settings, **settings})
        result: tuple[bool, list[Outcome]] = present(
            self.store, parse_models(list(wanted)), [Folder(self.source)], given
        )
        return result

    def files(self) -> list[Path]:
        """Every file that is in a tree or among the blobs."""
        return [path for path in sorted(self.store.models.rglob("*")) if path.is_file()]

    def tree(self, name: str, revision: str = REVISIONS[0]) -> Path:
        """The published folder of a model."""
        return Path(self.store.models) / name / revision[:12]

    def blobs(self) -> dict[str, int]:
        """Name of each blob -> its number of links."""
        return {item.name: item.stat().st_nlink for item in self.store.blobs.every()}
