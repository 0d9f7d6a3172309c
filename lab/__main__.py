"""`python -m lab`: the lab's verbs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from docker.errors import DockerException

from lab import engine, gpu_description, gpus, hosts, images, inventory, record, ssh
from lab.errors import LabError
from lab.report import PlainReport, Report


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="lab", description="Throwaway hosts on this machine.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="start a host, or find the one of this name")
    up.add_argument("name")
    up.add_argument("--platform", choices=images.PLATFORMS, default="debian13")
    up.add_argument("--user", choices=tuple(record.USERS), default="operator", help="whom SSH logs in as")
    up.add_argument(
        "--reboots", action="store_true", help="the host comes back when it restarts itself (else it is off)"
    )
    down = verbs.add_parser("down", help="remove a host, or all that the lab made")
    down.add_argument("name", nargs="?")
    down.add_argument("--images", action="store_true", help="also remove all images and models that were built")
    down.add_argument("--engine", action="store_true", help="also stop the engine, if the lab started it")
    status = verbs.add_parser("status", help="list the hosts")
    status.add_argument("--json", action="store_true")
    shell = verbs.add_parser("shell", help="log in on a host, or run a command there")
    shell.add_argument("name")
    shell.add_argument("command", nargs=argparse.REMAINDER)
    build = verbs.add_parser("images", help="build what is missing: images, the model, the lock file")
    build.add_argument("name", nargs="*", help=f"only these of: {' '.join(images.UNITS)}")
    build.add_argument("--list", action="store_true", help="say what is built, and build nothing")
    fit = verbs.add_parser("gpus", help="give a host fake GPUs and the stub NVIDIA repositories")
    fit.add_argument("name")
    fit.add_argument("description", choices=gpu_description.names(), help="what the host looks like: lab/gpus/")
    verbs.add_parser("inventory", help="print an Ansible inventory of the hosts")
    for verb, text in (
        ("seal", "take away a host's way out"),
        ("unseal", "give a host its way out back"),
        ("restart", "shut a host down and start it again"),
    ):
        verbs.add_parser(verb, help=text).add_argument("name")
    return top


def main(arguments: Sequence[str] | None = None, report: Report | None = None) -> int:
    """Run one verb; returns the exit status."""
    options = parser().parse_args(arguments)
    report = report or PlainReport()
    try:
        return _run(options, report)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except DockerException as error:
        print(f"lab: the container engine says: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, report: Report) -> int:
    verb = options.verb
    if verb == "up":
        host = hosts.up(
            options.name, platform=options.platform, user=options.user, reboots=options.reboots, report=report
        )
        print(f"{host.name} {host.address}")
    elif verb == "down":
        if options.name and (options.images or options.engine):
            raise LabError("--images and --engine go with removing all hosts: leave out the host's name")
        if options.name:
            hosts.down(options.name)
        else:
            hosts.down_all()
        if options.images:
            images.remove(engine.connect())
        if options.engine:
            engine.stop(report)
    elif verb == "status":
        found = hosts.status()
        if options.json:
            print(json.dumps([host.as_dict() for host in found], indent=2))
        for host in [] if options.json else found:
            print(f"{host.name:20} {host.platform:10} {host.address:15} {'running' if host.running else 'off'}")
    elif verb == "shell":
        host = hosts.get(options.name)
        line = ssh.command(host.address, host.user, host.key_file, host.known_hosts_file, options.command)
        # No shell is wanted here: the words go to ssh as they are.
        os.execv(line[0], line)  # noqa: S606
    elif verb == "images":
        if options.list:
            for unit, state, size in images.listing():
                print(f"{unit:15} {state:8} {size / 1e6:8.0f} MB")
        else:
            print(images.build(report, options.name or None).path)
    elif verb == "gpus":
        gpus.fit(options.name, options.description, report)
    elif verb == "inventory":
        print(json.dumps(inventory.document(hosts.status()), indent=2))
    elif verb == "seal":
        hosts.seal(options.name)
    elif verb == "unseal":
        hosts.unseal(options.name)
    elif verb == "restart":
        hosts.restart(options.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
