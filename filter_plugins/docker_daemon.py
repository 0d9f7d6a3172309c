# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Filter of the docker role: its options laid over what /etc/docker/daemon.json holds already.

Pure functions over parsed JSON; nothing is read or written.
"""

from __future__ import annotations

import json
from typing import Any

from ansible.errors import AnsibleFilterError

Options = dict[str, Any]


def plain(value: Any) -> Any:
    """A deep copy in plain containers. Ansible's own are filled while they are read, so they are not copied as such."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def merge(existing: Any, ours: Any) -> Any:
    """`ours` over `existing`: dictionaries key by key, lists united (existing first), else `ours` wins."""
    if isinstance(existing, dict) and isinstance(ours, dict):
        merged = dict(existing)
        for key, value in ours.items():
            merged[key] = merge(merged[key], value) if key in merged else value
        return merged
    if isinstance(existing, list) and isinstance(ours, list):
        return [*existing, *(item for item in ours if item not in existing)]
    return ours


def without(existing: Options, earlier: Options, ours: Options) -> Options:
    """`existing` less what an earlier run put there (`earlier`) and this one (`ours`) no longer wants."""
    kept: Options = {}
    for key, value in existing.items():
        was, now = earlier.get(key), ours.get(key)
        if key not in earlier:
            kept[key] = value
        elif isinstance(value, dict) and isinstance(was, dict):
            inner = without(value, was, now if isinstance(now, dict) else {})
            if inner or key in ours or (not value and was):
                kept[key] = inner
        elif isinstance(value, list) and isinstance(was, list):
            items = [item for item in value if item not in was or (isinstance(now, list) and item in now)]
            if items or key in ours or (not value and was):
                kept[key] = items
        elif key in ours or value != was:
            kept[key] = value
    return kept


def _parsed(text: str | None, path: str) -> Options:
    """The JSON object in a file's text; none and empty count as {}. Raises AnsibleFilterError."""
    if text is None or not text.strip():
        return {}
    try:
        document = json.loads(text)
    except ValueError as error:
        raise AnsibleFilterError(
            f"{path} is not valid JSON ({error}). Mend it or move it away; it was left as it is."
        ) from error
    if not isinstance(document, dict):
        raise AnsibleFilterError(f"{path} holds no JSON object. Mend it or move it away; it was left as it is.")
    return document


def docker_daemon_merge(texts: dict[str, str | None], ours: Options, path: str, record: str) -> Options:
    """The daemon options to be on the host.

    `texts`: what the files hold now (path: text or None). `path`: the daemon's file. `record`: the file in which
    the last run wrote down its own share, so that an option it set and no longer wants goes away again, while
    what an operator wrote stays. Raises AnsibleFilterError when `path` cannot be understood.
    """
    existing = _parsed(texts.get(path), path)
    earlier = _parsed(texts.get(record), record)
    ours = plain(ours)
    kept = without(existing, earlier, ours)
    if "log-driver" in ours and existing.get("log-driver", "json-file") != ours["log-driver"]:
        # They are options of that driver; with another one the engine would not start.
        kept.pop("log-opts", None)
    return dict(merge(kept, ours))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Names of the filters."""
        return {"docker_daemon_merge": docker_daemon_merge}
