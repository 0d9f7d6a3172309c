"""What `bundle` does: each action takes its options and returns its exit code.

Our shared code must have its name before this is imported (cli/shared_code.py).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.artifacts.errors import Refusal
from ansible.module_utils.bundle import building, checking, planning, sbom, signing
from ansible.module_utils.bundle.document import MANIFEST, Unreadable, parse_manifest
from ansible.module_utils.bundle.importing import bring
from ansible.module_utils.bundle.packing import parse_size
from ansible.module_utils.depot.depot import Depot
from ansible.module_utils.depot.signing import Signer
from ansible.module_utils.run_lock import Busy

from cli.meter import Meter
from installer import pack

__all__ = ["Busy", "Refusal", "Unreadable", "build", "import_", "inventory", "plan", "sign", "verify"]


def verify(options: argparse.Namespace) -> int:
    """Prove a bundle; 0 good, 1 bad."""
    with Meter("verifying", _bytes_at(options.folder)) as meter:
        keys = [*options.key, *options.keys]
        report = checking.verify(options.folder, keys, options.signatures, partial=options.partial, tick=meter.tick)
    manifest = report.content.manifest
    if options.json:
        document = {
            "site": manifest.site,
            "serial": manifest.serial,
            "kind": manifest.kind,
            "lock_digest": manifest.digest,
            "signers": report.content.signers,
            "volumes": list(report.content.volumes),
            "absent": report.content.absent,
            "read_bytes": report.read_bytes,
            "faults": [vars(fault) for fault in report.faults],
        }
        print(json.dumps(document, indent=2))
        return int(report.exit_code)
    print(f"{manifest.words}, signed by {', '.join(report.content.signers)}")
    for fault in report.faults:
        print(f"{fault.kind:10} {fault}")
    absent = f"; not here: {', '.join(report.content.absent)}" if report.content.absent else ""
    verdict = "good" if not report.faults else f"NOT good: {len(report.faults)} faults"
    print(f"{len(report.content.volumes)} volumes, {report.read_bytes:,} bytes read{absent}: {verdict}")
    return int(report.exit_code)


def _bytes_at(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.glob("volume-*/*"))
    except OSError:
        return 0


def import_(options: argparse.Namespace) -> int:
    """Bring a bundle into a depot."""
    depot = Depot(options.depot, Signer())
    with Meter("importing", _bytes_at(options.folder)) as meter:
        done = bring(
            options.folder,
            depot,
            [*options.key, *options.keys],
            site=options.site,
            need=options.signatures,
            allow_older=options.allow_older,
            partial=options.partial,
            tick=meter.tick,
        )
    print(f"site {done.site}, lock {done.serial} ({done.digest[7:19]}), signed by {', '.join(done.signers)}")
    print(f"{done.brought:,} bytes were brought to {options.depot}")
    print(f"still to come: {', '.join(done.absent)}; nothing is published yet" if done.absent else "published")
    return 0


def _read_lock(folder: Path) -> dict[str, Any]:
    from locks.folder import load  # noqa: PLC0415  # it needs PyYAML

    return load(folder)


def _against(path: Path | None) -> Any:
    return planning.against(path.read_bytes(), str(path)) if path else None


def plan(options: argparse.Namespace) -> int:
    """Show what a bundle would carry."""
    lock = _read_lock(options.lock)
    here = Depot(options.depot).inventory()["blobs"] if options.depot.is_dir() else {}
    document = planning.plan(lock, here, _against(options.against))
    if options.format == "json":
        print(json.dumps(document, indent=2))
    elif options.format == "cyclonedx":
        print(json.dumps(sbom.sbom(lock), indent=2))
    else:
        print("\n".join(planning.table(document, options.new)))
    return 0


def build(options: argparse.Namespace) -> int:
    """Write a bundle from the depot, and sign it when a key is named."""
    lock = _read_lock(options.lock)
    with tempfile.TemporaryDirectory(prefix="redoubt-installer-") as name:
        wishes = building.Wishes(
            volume_size=parse_size(options.volume_size) if options.volume_size else None,
            piece=parse_size(options.piece_size),
            against=_against(options.against),
            installer=_installer(Path(name)),
        )
        with Meter("building", 0) as meter:
            built = building.build(Depot(options.depot), lock, options.out, wishes, meter.tick)
    manifest = built.manifest
    volumes = f"{len(manifest.volumes)} volumes, {sum(row.bytes for row in manifest.volumes):,} bytes"
    print(f"{options.out}: {manifest.words}, {volumes}, {built.written:,} of them written now")
    if options.sign_key:
        return sign(argparse.Namespace(folder=options.out, **vars(options)))
    print(f"It is not signed yet: ./redoubt bundle sign {options.out} --sign-key FILE")
    return 0


def _installer(folder: Path) -> Path:
    """The installer of bare machines as a file in this folder."""
    return folder / str(pack.write(folder)["file"])


def sign(options: argparse.Namespace) -> int:
    """Sign a bundle that is written."""
    path = options.folder / MANIFEST
    manifest = parse_manifest(path.read_bytes(), str(path))
    print(f"{manifest.words}: signing")
    words = options.password_file.read_text().rstrip("\n") if options.password_file else None
    print(signing.sign(options.folder, manifest, options.sign_key, words))
    return 0


def inventory(options: argparse.Namespace) -> int:
    """Print what a depot holds."""
    if not options.depot.is_dir():
        raise Refusal(f"{options.depot}: there is no depot; name its folder with --depot")
    print(json.dumps(Depot(options.depot).inventory(), indent=1, sort_keys=True))
    return 0
