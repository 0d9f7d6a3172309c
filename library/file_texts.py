#!/usr/bin/python
# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""Ansible module: read several small text files, those that do not exist included."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: file_texts
short_description: Read several small text files in one task
description: A file that does not exist is null in the result, not a failure. Changes nothing.
options:
  paths: {description: Files to read., type: list, elements: path, required: true}
author: Redoubt contributors
"""

EXAMPLES = r"""
- name: Read what is there
  file_texts:
    paths: [/etc/docker/daemon.json]
  register: __role_files
"""

RETURN = r"""
texts: {description: "Path: text or null.", type: dict, returned: always}
"""

LIMIT = 1 << 20


def read(path: str) -> str | None:
    """The text of a file, None when there is none. Raises ValueError when it is no small text file."""
    file = Path(path)
    try:
        data = file.read_bytes() if file.stat().st_size <= LIMIT else None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if data is None:
        raise ValueError(f"{path} is larger than {LIMIT} bytes, so it is not the file that is meant")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text (byte {error.start})") from error


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"paths": {"type": "list", "elements": "path", "required": True}},
        supports_check_mode=True,
    )
    try:
        texts = {path: read(path) for path in module.params["paths"]}
    except ValueError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, texts=texts)


if __name__ == "__main__":
    main()
