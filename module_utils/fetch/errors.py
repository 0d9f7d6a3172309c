"""What may go wrong with a source, by what to do about it. Texts are for the operator and hold no secret."""

from __future__ import annotations


class Retry(Exception):
    """It may work later: after `after` seconds when the server said so, else after a pause of our own."""

    def __init__(self, text: str, after: float | None = None) -> None:
        super().__init__(text)
        self.after = after


class Unusable(Exception):
    """This source does not have the file as it must be; the next one may."""


class Dead(Unusable):
    """This source is of no use for any file."""
