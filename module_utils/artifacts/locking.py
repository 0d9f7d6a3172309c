"""Making a model's lock entry: from a hub at one commit, or from a folder. Every digest is computed or proved here."""

from __future__ import annotations

import fnmatch
import hashlib
import http.client
import json
import re
import stat
import urllib.parse
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.fetch.errors import Retry, Unusable
from ansible.module_utils.fetch.http import Client, Network, shown

from .errors import Refusal
from .manifest import PICKLE_SUFFIXES, REVISION, parse_models
from .survey import walk
from .transfer import hash_file

# Not needed to serve: git's own files, signatures, other frameworks' copies of the weights, pickles.
LEFT_OUT = (
    ".git*", "*.md", "*.sig", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.tflite", "*.ot", "flax_*", "tf_*",
    "original/*", *(f"*{suffix}" for suffix in PICKLE_SUFFIXES),
)  # fmt: skip
MOST_ANSWER = 64 << 20
NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="next"')


@dataclass(frozen=True)
class Choice:
    """Which files belong to the entry: those that match `include` (all when empty) and none of `exclude`."""

    include: Sequence[str] = ()
    exclude: Sequence[str] = LEFT_OUT

    def takes(self, path: str) -> bool:
        """Tell whether a file belongs to it."""
        wanted = not self.include or any(fnmatch.fnmatchcase(path, pattern) for pattern in self.include)
        return wanted and not any(fnmatch.fnmatchcase(path, pattern) for pattern in self.exclude)


def lock_folder(folder: Path, revision: str, choice: Choice, workers: int = 4) -> dict[str, Any]:
    """Return {revision, total_size, files} of a folder; without a commit the revision is made from the files.

    Raises Refusal for links and for what is no file, OSError.
    """
    paths = []
    for path, status in walk(folder).items():
        if stat.S_ISDIR(status.st_mode) or not choice.takes(path):
            continue
        if not stat.S_ISREG(status.st_mode):
            raise Refusal(f"{folder / path} is not a regular file; put the file itself there (cp -L)")
        paths.append(path)
    with ThreadPoolExecutor(workers) as pool:
        digests = list(pool.map(lambda path: hash_file(folder / path, lambda _: None), paths))
    files = [{"path": path, "size": size, "sha256": sha256} for path, (sha256, size) in zip(paths, digests)]
    made = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:40]
    return lock_entry(revision or made, files)


class HubLock:
    """Reads a repository of the Hugging Face hub, or of a mirror of it."""

    def __init__(self, base: str, repo: str, network: Network, token: str = "") -> None:
        self._base, self._repo, self._token = base.rstrip("/"), repo, token
        self._client = Client(network)

    def lock(self, revision: str, choice: Choice) -> dict[str, Any]:
        """Return {revision, repo, license, total_size, files} of a commit, or of a branch as it is. Raises Refusal."""
        quoted = urllib.parse.quote(self._repo)
        commit, about = self._commit(revision)
        files = [self._file(item, commit) for item in self._tree(quoted, commit) if choice.takes(item["path"])]
        card = about.get("cardData")
        licence = card.get("license") if isinstance(card, dict) else None
        return {"repo": self._repo, "license": str(licence or "unknown"), **lock_entry(commit, files)}

    def newest(self, branch: str = "main") -> str:
        """Return the commit that a branch is now. Raises Refusal."""
        return self._commit(branch)[0]

    def _commit(self, revision: str) -> tuple[str, dict[str, Any]]:
        """Return the commit that a commit or branch is, and what the hub says of it."""
        quoted = urllib.parse.quote(self._repo)
        about = self._json(f"/api/models/{quoted}/revision/{urllib.parse.quote(revision, safe='')}")
        about = about if isinstance(about, dict) else {}
        commit = about.get("sha")
        if not isinstance(commit, str) or not REVISION.fullmatch(commit):
            raise Refusal(f"{self._base}: does not say which commit {self._repo} {revision} is")
        if REVISION.fullmatch(revision) and commit != revision:
            raise Refusal(f"{self._base}: asked for {self._repo} at {revision}, it speaks of {commit}")
        return commit, about

    def _tree(self, quoted: str, commit: str) -> Iterator[dict[str, Any]]:
        target: str | None = f"/api/models/{quoted}/tree/{commit}?recursive=true"
        while target is not None:
            response = self._get(target)
            for item in _parsed(response[0], f"{self._base}{target}"):
                if item.get("type") == "file":
                    yield item
            match = NEXT.search(response[1])
            target = urllib.parse.urljoin(self._base + target, match.group(1)) if match else None

    def _file(self, item: dict[str, Any], commit: str) -> dict[str, Any]:
        """Return {path, size, sha256}: for a large file as the hub says, for a small one of its bytes."""
        path, size, large = item["path"], item["size"], item.get("lfs")
        if large:
            return {"path": path, "size": large["size"], "sha256": large["oid"].rpartition(":")[2]}
        target = f"/{urllib.parse.quote(self._repo)}/resolve/{commit}/{urllib.parse.quote(path)}"
        data, _ = self._get(target)
        # Git names a file by the SHA-1 of its header and its bytes; the commit vouches for that name.
        name = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        if len(data) != size or name != item["oid"]:
            raise Refusal(f"{self._base}{target}: its bytes are not those that the commit has under this name")
        return {"path": path, "size": size, "sha256": hashlib.sha256(data).hexdigest()}

    def _json(self, target: str) -> Any:
        return _parsed(self._get(target)[0], f"{self._base}{target}")

    def _get(self, target: str) -> tuple[bytes, str]:
        url = target if "://" in target else f"{self._base}{target}"
        try:
            response, final = self._client.get(url, {}, self._token if url.startswith(f"{self._base}/") else "")
            data = response.read(MOST_ANSWER + 1)
        except (Retry, Unusable) as error:
            raise Refusal(str(error)) from error
        except (OSError, http.client.HTTPException) as error:
            raise Refusal(f"{shown(url)}: the connection broke ({type(error).__name__})") from error
        if response.status != http.client.OK:
            hint = "; is a token needed, are repository and commit right?" if response.status in (401, 403, 404) else ""
            raise Refusal(f"{shown(final)}: the server answers {response.status} {response.reason}{hint}")
        if len(data) > MOST_ANSWER:
            raise Refusal(f"{shown(final)}: has more than {MOST_ANSWER} bytes, too many for what is not a large file")
        return data, response.getheader("Link") or ""


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise Refusal(f"{shown(where)}: is not JSON; does the server speak the hub's protocol?") from error


def lock_entry(revision: str, files: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the entry, checked as the installation will check it. Raises Refusal."""
    ordered = sorted(files, key=lambda file: str(file["path"]))
    # Whether pickles and programs are wanted is for the site to say.
    parse_models([{"name": "model", "revision": revision, "files": ordered}], ["model"], ["model"])
    return {"revision": revision, "total_size": sum(file["size"] for file in ordered), "files": ordered}
