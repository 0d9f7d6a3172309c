# Copyright: Redoubt contributors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of the gateway's policy, asked from where clients are. Standard library only."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any, Callable, Dict, Tuple

from ansible.module_utils.probes import http_request, split_address

Check = Dict[str, Any]
Answer = Tuple[bool, str]


def _ask(check: Check, path: str, key: str | None, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json"} if body else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    status, _, answer = http_request(
        check["url"] + path,
        method,
        headers,
        body,
        ca=check.get("ca") or None,
        server_name=check["server_name"],
        connect_to=check.get("connect_to"),
        timeout=check.get("timeout", 60),
    )
    return status, answer


def _status(check: Check) -> Answer:
    """Each of `paths` must answer `status`; with `check['api_key']` unless `anonymous`."""
    key = None if check.get("anonymous") else check.get("present_key") or check["api_key"]
    wrong = []
    for path in check["paths"]:
        status, _ = _ask(check, path, key)
        if status != check["status"]:
            wrong.append(f"{path} answers {status} instead of {check['status']}")
    return not wrong, "; ".join(wrong) or f"{len(check['paths'])} paths answer {check['status']}"


def _stream(check: Check) -> Answer:
    """A streamed chat completion with the key arrives in more than one piece."""
    body = {
        "model": check["model"],
        "messages": [{"role": "user", "content": "Count from 1 to 5."}],
        "max_tokens": 12,
        "temperature": 0,
        "stream": True,
    }
    status, answer = _ask(check, "/v1/chat/completions", check["api_key"], "POST", json.dumps(body).encode())
    if status != 200:
        return False, f"the gateway answers {status}: {answer[:200].decode(errors='replace')}"
    lines = [line[6:] for line in answer.decode().splitlines() if line.startswith("data: ")]
    pieces = [json.loads(line) for line in lines if line != "[DONE]"]
    text = "".join(c["delta"].get("content") or "" for p in pieces for c in p["choices"])
    ok = len(pieces) > 1 and bool(text.strip()) and "[DONE]" in lines
    return ok, f"{len(pieces)} pieces: {text!r}"


def _tls_versions(check: Check) -> Answer:
    """Only TLS 1.2 and 1.3 are spoken."""
    spoken = []
    address = split_address(check["address"])
    for name in ("TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # only the version is looked at here; _status verifies
        # The client's own library must be willing to speak the old versions, else the test proves nothing.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, name)
        try:
            with (
                socket.create_connection(address, timeout=10) as plain,
                context.wrap_socket(plain, server_hostname=check["server_name"]),
            ):
                spoken.append(name)
        except (ssl.SSLError, ConnectionResetError):
            continue
    old = [name for name in spoken if name in ("TLSv1", "TLSv1_1")]
    return bool(spoken) and not old, f"speaks {', '.join(spoken) or 'no TLS'}"


def _closed(check: Check) -> Answer:
    """None of `addresses` accepts a connection."""
    open_ones = []
    for address in check["addresses"]:
        try:
            with socket.create_connection(split_address(address), timeout=3):
                open_ones.append(address)
        except OSError:
            continue
    text = f"can be reached: {', '.join(open_ones)}" if open_ones else f"closed: {', '.join(check['addresses'])}"
    return not open_ones, text


GATEWAY_KINDS: Dict[str, Callable[[Check], Answer]] = {
    "status": _status,
    "stream": _stream,
    "tls_versions": _tls_versions,
    "closed": _closed,
}
