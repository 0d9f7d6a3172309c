"""The real `model_signing`, the independent judge of signatures."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from model_signing._cli import main


def model_signing(*arguments: str | Path) -> bool:
    """Run the real tool's command line, in this process since it loads slowly; return whether it was content."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    print(done.output)
    return done.exit_code == 0
