"""What a conversion is: checked input, one container, and the manifest of what went in and came out. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.artifacts.image_list import REGISTRY, Image, parse_images
from ansible.module_utils.artifacts.manifest import NAME, Model, parse_models

SCHEMA = 1
# In the result's tree: what it was made of, and how.
MANIFEST = "conversion.json"
IMAGE_MARK = "@image@"


@dataclass(frozen=True)
class Job:
    """One conversion, as the plan has it; `compose` is the rendered file, with a mark where the image's Id goes."""

    name: str
    kind: str
    container: str
    image: Image
    inputs: tuple[Model, ...]
    programs: Mapping[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    gives: str
    needed_bytes: int
    licence: str
    compose: str

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides what comes out, but for chance: inputs, image, programs, command, environment."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "kind": self.kind,
            "inputs": [
                {
                    "name": model.name,
                    "revision": model.revision,
                    **({"repo": model.repo} if model.repo else {}),
                    "files": [vars(entry) for entry in model.files],
                }
                for model in self.inputs
            ],
            "image": {
                "ref": self.image.ref,
                "digest": self.image.digest,
                "config_digest": self.image.config_digest,
            },
            "programs": {name: sha256(text) for name, text in sorted(self.programs.items())},
            "command": [*self.entrypoint, *self.command],
            "environment": dict(self.environment),
        }

    @property
    def key(self) -> str:
        """The recipe's name: with another one it is another conversion."""
        return sha256(json.dumps(self.recipe, sort_keys=True))[:16]

    def manifest(self, outputs: Sequence[Mapping[str, Any]], tools: Mapping[str, str]) -> str:
        """Return the text of the manifest. No times are in it: the same bytes made twice are the same revision."""
        document = {**self.recipe, "tools": dict(tools), "outputs": [dict(one) for one in outputs]}
        return json.dumps(document, indent=1, sort_keys=True) + "\n"


def sha256(text: str) -> str:
    """Return the SHA-256 of a text in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse_job(raw: Mapping[str, Any], programs: Mapping[str, str], compose: str) -> Job:
    """Return the job that the plan describes. Raises Refusal, above all for an image that only a tag describes."""
    name = raw.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Refusal(f"conversion {name!r}: the name is not one of a model")
    try:
        (image,) = parse_images([raw["image"]], REGISTRY if not raw["image"].get("archive") else "")
        # Whether their pickles and programs are wanted was said when they were brought.
        inputs = tuple(
            model for item in raw["inputs"] for model in parse_models([item], [item["name"]], [item["name"]])
        )
    except Refusal as refusal:
        raise Refusal([f"conversion {name}: {problem}" for problem in refusal.problems]) from None
    lacking = sorted(set(raw["programs"]) - set(programs))
    if lacking or IMAGE_MARK not in compose:
        raise Refusal(f"conversion {name}: {', '.join(lacking) or IMAGE_MARK} was not given to the module")
    return Job(
        name=name,
        kind=str(raw["kind"]),
        container=str(raw["container"]),
        image=image,
        inputs=inputs,
        programs={key: programs[key] for key in raw["programs"]},
        entrypoint=tuple(raw["entrypoint"]),
        command=tuple(raw["command"]),
        environment=dict(raw["environment"]),
        gives=str(raw["gives"]),
        needed_bytes=int(raw["needed_bytes"]),
        licence=str(raw.get("license") or "unknown"),
        compose=compose,
    )
