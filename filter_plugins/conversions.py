"""Filters of the role convert: which conversions of the plan are meant, and what they need to be there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any


def conversions_chosen(jobs: Sequence[Mapping[str, Any]], only: str) -> list[Mapping[str, Any]]:
    """Return all conversions, or the one of this name. Raises ValueError where there is none."""
    chosen = [job for job in jobs if not only or job["name"] == only]
    if only and not chosen:
        names = ", ".join(job["name"] for job in jobs) or "none"
        raise ValueError(f"convert_only = {only}: this host has no such conversion. Fix: name one of: {names}")
    return chosen


def conversion_weights(jobs: Sequence[Mapping[str, Any]], weights: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the models that the host needs: `weights` (what it serves), and the inputs.

    What is served is among them, since the role weights takes these for all that the host wants.
    """
    inputs = [
        {key: value for key, value in one.items() if key not in ("mount", "path")}
        for job in jobs
        for one in job["inputs"]
    ]
    return list({one["name"]: dict(one) for one in [*inputs, *weights]}.values())


def conversion_images(jobs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the images that the conversions need, each once."""
    return list({job["image"]["key"]: dict(job["image"]) for job in jobs}.values())


def conversion_program(path: str) -> str:
    """Return the text of a program, to the last byte: its digest goes into the manifest."""
    return Path(path).read_text(encoding="utf-8")


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "conversion_images": conversion_images,
            "conversion_program": conversion_program,
            "conversion_weights": conversion_weights,
            "conversions_chosen": conversions_chosen,
        }
