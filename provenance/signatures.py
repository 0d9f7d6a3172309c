"""Judging a site's models: is each one signed by somebody who is trusted, file for file as the lock has it? Pure.

The control host decides, before any host is asked. Hosts need no cryptography: the module `weights` holds them to the
lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from planner.problems import Problem
from provenance.oms import BadSignature, Statement, read_bundle, read_statement
from provenance.trust import Trust, fingerprint, load_authorities, load_key, verify

VARIABLE = "redoubt_model_signatures"
VARIABLES = ("redoubt_models", "redoubt_model_locks", VARIABLE)
POLICIES = ("ignore", "warn", "require")
# What weights_lock leaves out of an entry unless it is told otherwise, so that a publisher's signature of the whole
# repository goes with it.
LEFT_OUT = (
    ".git*", "*.md", "*.sig", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.tflite", "*.ot", "flax_*", "tf_*",
    "original/*", "*.bin", "*.ckpt", "*.joblib", "*.pickle", "*.pkl", "*.pt", "*.pth",
)  # fmt: skip
_SHOWN = 3
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
Kind = TypeVar("Kind")
Read = Callable[[str], str]


@dataclass
class Verdict:
    """What was found: refusals, warnings, and by model who signed it."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    signers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Settings:
    """`redoubt_model_signatures`, read."""

    policy: str
    folder: str
    left_out: Sequence[str]
    trust: Trust


def judge(values: Mapping[str, Any], folder: str, read: Read, now: datetime | None = None) -> Verdict:
    """Judge the models of one host by its variables (those of redoubt_*).

    folder: where signatures are when the settings do not say; read: gives the text of a file, and a PEM text as it is,
    or raises OSError or ValueError; now: for tests.
    """
    verdict = Verdict()
    raw = values.get(VARIABLE)
    models = [entry for entry in _list(values.get("redoubt_models")) if isinstance(entry, Mapping)]
    locks = values.get("redoubt_model_locks")
    settings = _settings(raw if isinstance(raw, Mapping) else {}, models, folder, read, verdict)
    if settings is None or not isinstance(locks, Mapping):
        return verdict
    for index, model in enumerate(models):
        name, wishes = str(model.get("name")), model.get("signature")
        wishes = wishes if isinstance(wishes, Mapping) else {}
        policy = wishes.get("policy") or settings.policy
        files = _locked(locks.get(name))
        if policy not in POLICIES[1:] or files is None:
            continue  # ignored; or refused for another reason
        file = str(wishes.get("file") or f"{settings.folder}/{name}.sig")
        try:
            moment = _moment(wishes.get("valid_at"), f"redoubt_models[{index}].signature.valid_at") or now
            verdict.signers[name] = _check(file, name, files, settings, read, moment)
        except _Refused as refused:
            if policy == "require":
                verdict.problems.append(refused.problem)
            else:
                verdict.warnings.append(f"{refused.problem.where}: {refused.problem.why}")
    return verdict


class _Refused(Exception):
    def __init__(self, where: str, why: str, fix: str, value: str | None = None) -> None:
        super().__init__(why)
        self.problem = Problem(where, why, fix, value)


def _check(file: str, name: str, files: Mapping[str, str], settings: _Settings, read: Read, at: datetime | None) -> str:
    """Return who signed. Raises _Refused."""
    try:
        text = read(file)
    except FileNotFoundError:
        why = f"model {name} is not signed: this file is not there"
        fix = "put the signature there (./redoubt play weights_sign makes one), or set signature.policy of this model"
        raise _Refused(file, why, fix) from None
    except (OSError, ValueError) as error:
        raise _Refused(file, f"the signature of {name} cannot be read ({error})", "make it readable") from None
    try:
        bundle = read_bundle(text)
        signer = verify(bundle, settings.trust, at)
        signed = read_statement(bundle.payload)
    except BadSignature as error:
        fix = f"get the right signature, or, if you trust who signed, add that key or authority to {VARIABLE}"
        if "expired" in str(error):
            fix = "sign again, or, if it was signed in time, say when in signature.valid_at of the model"
        raise _Refused(file, f"the signature of {name} is refused: {error}", fix) from None
    wrong = [*differences(signed, files, settings.left_out)]
    if wrong:
        fix = "get the signature of these files (commit), or lock the files that were signed"
        raise _Refused(file, f"it is not the signature of what the lock has for {name}: {'; '.join(wrong)}", fix)
    return signer


def differences(signed: Statement, locked: Mapping[str, str], left_out: Sequence[str]) -> Iterable[str]:
    """Yield how the signed list and the locked one (SHA-256 by path) differ; the lock may lack what `left_out` says."""
    other = sorted(path for path in locked if path in signed.files and signed.files[path] != locked[path])
    if other:
        yield f"other bytes were signed for {_some(other)}"
    extra = sorted(set(locked) - set(signed.files))
    if extra:
        yield f"not signed: {_some(extra)}"
    missing = sorted(
        path for path in set(signed.files) - set(locked) if not any(fnmatchcase(path, rule) for rule in left_out)
    )
    if missing:
        yield f"signed, but not in the lock: {_some(missing)}"


def locked_files(entry: object) -> dict[str, str]:
    """Return SHA-256 by path of a lock entry. Raises ValueError."""
    files = _locked(entry)
    if files is None:
        raise ValueError("it is no lock entry: its files are not a list of {path, size, sha256}, each path once")
    return files


def _locked(entry: object) -> dict[str, str] | None:
    rows = entry.get("files") if isinstance(entry, Mapping) else None
    if not isinstance(rows, list | tuple) or not rows:
        return None
    files: dict[str, str] = {}
    for row in rows:
        path, digest = (row.get("path"), row.get("sha256")) if isinstance(row, Mapping) else (None, None)
        if not isinstance(path, str) or not isinstance(digest, str) or path in files:
            return None
        files[path] = digest
    return files


def _settings(
    raw: Mapping[str, Any], models: Sequence[Mapping[str, Any]], folder: str, read: Read, verdict: Verdict
) -> _Settings | None:
    """Return the settings; None where no model is to be looked at, or where they are refused."""
    # Who names somebody to trust means it.
    policy = raw.get("policy") or ("require" if raw else "ignore")
    own = [entry["signature"] for entry in models if isinstance(entry.get("signature"), Mapping)]
    if policy not in POLICIES or not {policy, *(str(item.get("policy")) for item in own)} & set(POLICIES[1:]):
        return None
    keys = {fingerprint(key): key for key in _loaded(raw, "keys", load_key, read, verdict)}
    chains = _loaded(raw, "authorities", load_authorities, read, verdict)
    authorities = tuple(certificate for chain in chains for certificate in chain)
    if not verdict.problems and not keys and not authorities:
        why = "signatures are wanted, but nobody is trusted to sign"
        verdict.problems.append(
            Problem(VARIABLE, why, "give `keys` (public, PEM) or `authorities` (certificates, PEM)")
        )
    if verdict.problems:
        return None
    left_out = raw.get("left_out")
    return _Settings(
        policy=str(policy),
        folder=str(raw.get("folder") or folder),
        left_out=LEFT_OUT if left_out is None else [str(rule) for rule in _list(left_out)],
        trust=Trust(keys, authorities, tuple(str(signer) for signer in _list(raw.get("signers")))),
    )


def _loaded(raw: Mapping[str, Any], name: str, load: Callable[[str], Kind], read: Read, verdict: Verdict) -> list[Kind]:
    """Return what the PEM texts, or files with them, of one setting hold; what is wrong goes to the verdict."""
    loaded = []
    for index, item in enumerate(_list(raw.get(name))):
        where, text = f"{VARIABLE}.{name}[{index}]", str(item)
        try:
            loaded.append(load(read(text)))
        except BadSignature as error:
            verdict.problems.append(Problem(where, str(error), "give a PEM text, or the path of such a file here"))
        except (OSError, ValueError) as error:
            why = f"the file cannot be read ({error})"
            verdict.problems.append(Problem(where, why, "give its path on this machine"))
    return loaded


def _moment(raw: object, where: str) -> datetime | None:
    """Return the last moment of a day that an operator wrote, or None."""
    if raw is None:
        return None
    text = raw.isoformat() if isinstance(raw, date) else str(raw)
    try:
        if not _DATE.fullmatch(text):
            raise ValueError(text)
        return datetime.fromisoformat(text).replace(tzinfo=UTC) + timedelta(hours=24, seconds=-1)
    except ValueError:
        raise _Refused(where, "it is not a day", "write it such as 2026-01-31, in quotes", text) from None


def _list(raw: object) -> Sequence[Any]:
    return raw if isinstance(raw, list | tuple) else ()


def _some(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more
