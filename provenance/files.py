"""Files on the control host, as Ansible sees them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError, AnsibleFileNotFound


def text(loader: Any, given: str) -> str:
    """Return a PEM text as it is, or the text of a file on this machine, which the vault may have encrypted.

    Raises OSError, ValueError.
    """
    if "-----BEGIN" in given:
        return given
    try:
        return Path(loader.get_real_file(loader.path_dwim(given))).read_text(encoding="utf-8")
    except AnsibleFileNotFound as error:
        raise FileNotFoundError(_first_line(error)) from None
    except AnsibleError as error:
        raise OSError(_first_line(error)) from None


def put(path: Path, content: str, *, check: bool) -> bool:
    """Write a file by one rename unless it has this content; return whether it was another. Raises OSError."""
    if path.is_file() and path.read_bytes() == content.encode():
        return False
    if check:
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return True


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
