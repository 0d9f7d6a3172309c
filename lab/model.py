"""The lab's model, for those who need nothing else."""

from __future__ import annotations

from lab import images, recipe_model
from lab.recipe_model import ModelRecord
from lab.report import Report

NAME = recipe_model.NAME


def prepare(report: Report) -> ModelRecord:
    """The model on the medium, made where it is missing. Raises LabError where that fails."""
    return images.build(report, ["model"]).models[NAME]
