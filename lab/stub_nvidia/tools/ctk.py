"""`nvidia-ctk`: writes a CDI specification that a container engine can really use, and Docker's configuration.

A container gets the device nodes of its GPUs, the mock NVML, a small nvidia-smi and the text that both read.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import yaml

from . import flat, views
from .host import Gpu, Host

KIND = "nvidia.com/gpu"
#: What NVIDIA's toolkit writes since 1.19.
CDI_VERSION = "0.7.0"
DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
LIBRARY = "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so"
CONTAINER_SMI = "/usr/lib/stub-nvidia/container/nvidia-smi"


def main(arguments: list[str] | None = None, host: Host | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    host = host or Host()
    if options.version:
        print(f"NVIDIA Container Toolkit CLI version {host.component('toolkit')}\ncommit: stub")
        return 0
    if options.group == "cdi" and options.verb == "generate":
        return _generate(host, options.output or os.environ.get("NVIDIA_CTK_CDI_OUTPUT_FILE_PATH", ""), options.format)
    if options.group == "cdi":
        return _list(host)
    if options.group == "runtime":
        return _configure(host, options)
    # `config` and `system`: packages and units run them; there is nothing to configure, and the nodes are there.
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nvidia-ctk", description="stub of the Redoubt lab, not NVIDIA's")
    parser.add_argument("--version", "-v", action="store_true")
    parser.add_argument("--quiet", "-q", action="store_true")
    groups = parser.add_subparsers(dest="group")
    cdi = groups.add_parser("cdi").add_subparsers(dest="verb", required=True)
    generate = cdi.add_parser("generate")
    generate.add_argument("--output", default="")
    generate.add_argument("--format", choices=("yaml", "json"), default="yaml")
    cdi.add_parser("list")
    configure = groups.add_parser("runtime").add_subparsers(dest="verb", required=True).add_parser("configure")
    configure.add_argument("--runtime", choices=("docker",), required=True)
    configure.add_argument("--config", default="/etc/docker/daemon.json")
    for switch in ("--cdi.enabled", "--nvidia-set-as-default", "--dry-run"):
        configure.add_argument(switch, action="store_true", dest=switch.strip("-").replace("-", "_").replace(".", "_"))
    nodes = groups.add_parser("system").add_subparsers(dest="verb", required=True).add_parser("create-device-nodes")
    for switch in ("--control-devices", "--load-kernel-modules"):
        nodes.add_argument(switch, action="store_true")
    config = groups.add_parser("config")
    config.add_argument("--in-place", action="store_true")
    config.add_argument("--config-file")
    config.add_argument("--set")
    return parser


def specification(host: Host) -> dict[str, Any]:
    """The CDI document for the host's GPUs. Raises RuntimeError where NVML would not come up."""
    loaded, library = host.driver(), host.component("nvml")
    if loaded is None:
        raise RuntimeError("failed to initialize NVML: Driver Not Loaded")
    if loaded != library:
        raise RuntimeError("failed to initialize NVML: Driver/library version mismatch")
    gpus = [gpu for gpu in host.gpus() if not gpu.lost]
    if not gpus:
        raise RuntimeError("no NVIDIA device found")
    devices = []
    for gpu in gpus:
        if not gpu.mig_enabled:
            devices += [_device(name, [_node(gpu)]) for name in (str(gpu.index), gpu.uuid)]
    number = {gpu.uuid: 0 for gpu in gpus}
    for cap, gpu, device in flat.caps(gpus):
        nodes = [_node(gpu), f"/dev/nvidia-caps/nvidia-cap{cap}"]
        devices += [_device(name, nodes) for name in (f"{gpu.index}:{number[gpu.uuid]}", device["uuid"])]
        number[gpu.uuid] += 1
    edits = [node for device in devices for node in device["containerEdits"]["deviceNodes"]]
    devices.append(_device("all", sorted({node["path"] for node in edits})))
    # These come with every device and say nothing about which.
    shared = ["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"]
    # The real toolkit mounts the versioned file only, and a hook in the container makes the link.
    library = f"{LIBRARY}.{library}"
    mounts = [
        (library, library),
        (library, f"{LIBRARY}.1"),
        (CONTAINER_SMI, "/usr/bin/nvidia-smi"),
        (views.RUN, views.RUN),
    ]
    return {
        "cdiVersion": CDI_VERSION,
        "kind": KIND,
        "devices": devices,
        "containerEdits": {
            "env": ["NVIDIA_VISIBLE_DEVICES=void"],
            "deviceNodes": [_edit(path) for path in shared],
            "mounts": [
                {"hostPath": source, "containerPath": target, "options": ["ro", "nosuid", "nodev", "rbind"]}
                for source, target in mounts
            ],
        },
    }


def _node(gpu: Gpu) -> str:
    return f"/dev/nvidia{gpu.index}"


def _device(name: str, nodes: list[str]) -> dict[str, Any]:
    return {"name": name, "containerEdits": {"deviceNodes": [_edit(path) for path in nodes]}}


def _edit(path: str) -> dict[str, Any]:
    return {"path": path, "hostPath": path}


def _generate(host: Host, output: str, form: str) -> int:
    try:
        document = specification(host)
    except RuntimeError as error:
        print(f"nvidia-ctk: failed to generate CDI spec: {error}", file=sys.stderr)
        return 1
    text = "# stub\n" + yaml.safe_dump(document) if form == "yaml" else json.dumps(document, indent=2) + "\n"
    if not output:
        print(text, end="")
        return 0
    target = host.path(output)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(target)
    return 0


def _list(host: Host) -> int:
    found = []
    for folder in DIRECTORIES:
        for path in sorted(host.path(folder).glob("*.[yj]*")):
            document = yaml.safe_load(path.read_text(encoding="utf-8"))
            found += [f"{document['kind']}={device['name']}" for device in document["devices"]]
    print(f"INFO[0000] Found {len(found)} CDI devices", file=sys.stderr)
    print("\n".join(sorted(found)))
    return 0


def _configure(host: Host, options: argparse.Namespace) -> int:
    path: Path = host.path(options.config)
    try:
        document = json.loads(path.read_text(encoding="utf-8") or "{}")
    except FileNotFoundError:
        document = {}
    document.setdefault("runtimes", {})["nvidia"] = {"args": [], "path": "nvidia-container-runtime"}
    if options.cdi_enabled:
        document.setdefault("features", {})["cdi"] = True
    if options.nvidia_set_as_default:
        document["default-runtime"] = "nvidia"
    text = json.dumps(document, indent=4) + "\n"
    if options.dry_run:
        print(text, end="")
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print("INFO[0000] It is recommended that docker daemon be restarted.", file=sys.stderr)
    return 0
