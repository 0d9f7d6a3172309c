"""The one error that the lab raises on purpose."""


class LabError(RuntimeError):
    """Something the lab needs is missing or failed; the message says what, where and how to mend it."""
