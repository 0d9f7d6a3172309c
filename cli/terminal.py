"""Leaving the terminal as it was found."""

from __future__ import annotations

import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def restored_terminal() -> Iterator[None]:
    """Puts back the modes of the terminal (echo, line input) and shows the cursor, however the body ends."""
    before = None
    with suppress(OSError, ValueError, termios.error):
        before = termios.tcgetattr(sys.stdin.fileno())
    try:
        yield
    finally:
        if before is not None:
            with suppress(OSError, ValueError, termios.error):
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
        if sys.stdout.isatty():
            sys.stdout.write(SHOW_CURSOR)
            sys.stdout.flush()
