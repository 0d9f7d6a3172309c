"""The command line of the launcher. Importing this needs the standard library only, so that --help always works."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

EXIT_CODES = "exit codes: 0 ok, 1 something failed, 2 wrong usage, 130 interrupted (Ctrl-C)"

TOP = f"""
examples:
  ./redoubt demo                                      a whole service on a throwaway host on this machine
  ./redoubt play site -i inventories/single           install on the hosts of an inventory
  ./redoubt play verify -i inventories/single         ask the doctor
  ./redoubt test --quick                              lint and unit tests
  ./redoubt lab status                                the throwaway hosts
  ./redoubt bundle verify /media/usb --key site.pub   prove a bundle; see ./redoubt bundle --help

{EXIT_CODES}
"""

PLAY = f"""
NAME is `site`, the name of a file in playbooks/, or the path of any playbook. Every option that is not
listed here goes to ansible-playbook untouched: --check, --diff, --limit, --tags, -e, --list-tasks,
--vault-password-file, -vvv ... Options that ask for a password (-K, --ask-vault-password ...) ask here.

Each run leaves a folder .runs/<time>-<name>/ (the last 20 are kept):
  events.jsonl   every event of Ansible, one JSON object per line; results marked no_log are censored
  timing.json    seconds by phase and by task, counts by host
  output.log     the text that ansible-playbook printed

examples:
  ./redoubt play site
  ./redoubt play site -i inventories/fleet --limit gateways --check --diff
  ./redoubt play verify -i inventories/single --vault-password-file ~/.vault

{EXIT_CODES}
"""

DEMO = f"""
Builds the lab's images if they are missing (minutes, once), starts one host (a systemd container, Debian 13),
installs everything on it with site.yml over SSH, asks the doctor, then asks the model a question through the
gateway, over TLS and with an API key. A host that runs already is used again.

examples:
  ./redoubt demo
  ./redoubt demo --fresh        from an empty host
  ./redoubt demo --down         remove the host; what was built stays for the next time

{EXIT_CODES}
"""

TEST = f"""
Tiers, in this order: lint, unit, molecule, e2e, gpu (skipped without an NVIDIA GPU), and with --slow also bench.

examples:
  ./redoubt test                          everything that CI runs
  ./redoubt test --quick                  lint and unit
  ./redoubt test --only unit -k gateway   the unit tests whose names contain `gateway`
  ./redoubt test --only molecule:docker   one scenario
  ./redoubt test --only lint:mypy         one tool

The last line is `N passed, N failed`. {EXIT_CODES}
"""

COMPARE = """
A and B are hosts whose fingerprints `play verify` left in .runs/fingerprints/, or files with fingerprints. One alone is
compared with what the host itself recorded when Redoubt last worked on it; with --lock, with a lock. Two of one host,
taken at different times, show also its own addresses, names and package sources. `play compare` asks the hosts afresh.

examples:
  ./redoubt compare h1 h2                        two hosts that should be the same
  ./redoubt compare h1                           what somebody changed on h1
  ./redoubt compare h1 --lock lock               what h1 has that the lock does not allow
  ./redoubt compare before.json h1 --json

exit codes: 0 nothing differs, 1 something does, 2 wrong usage or not readable, 130 interrupted (Ctrl-C)
"""

LAB = f"""
Throwaway hosts on this machine: systemd containers that are reached by SSH, like a real server.

actions (each has its own --help):
  up NAME          start a host, or find the one of this name
  down [NAME]      remove a host; without a name all that the lab made
  status           list the hosts
  shell NAME       log in on a host, or run a command there
  images           build what is missing: host and service images, model
  inventory        print an Ansible inventory of the hosts
  seal, unseal     take a host's way out away, give it back
  restart NAME     shut a host down and start it again

examples:
  ./redoubt lab up web1 --platform debian12
  ./redoubt lab shell web1 systemctl --failed
  ./redoubt lab down

{EXIT_CODES}
"""

SETUP = f"""
Every verb does this by itself when it is needed.

examples:
  ./redoubt setup
  ./redoubt setup --dev         also what the tests need

{EXIT_CODES}
"""


class _Parser(argparse.ArgumentParser):
    """Examples keep their line breaks; abbreviated options are refused (they may be ansible-playbook's)."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **settings})


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(prog="redoubt", description="A private LLM service on your own hosts.", epilog=TOP)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    demo = verbs.add_parser("demo", help="the whole way once: a lab host, site.yml, a question", epilog=DEMO)
    change = demo.add_mutually_exclusive_group()
    change.add_argument("--fresh", action="store_true", help="remove the demo's host first")
    change.add_argument("--down", action="store_true", help="remove the demo's host and stop")

    test = verbs.add_parser("test", help="lint, unit tests, molecule scenarios, end-to-end tests", epilog=TEST)
    test.add_argument("--quick", action="store_true", help="lint and unit only")
    test.add_argument("--slow", action="store_true", help="also the benchmarks and all that is marked slow")
    test.add_argument("--only", metavar="TIER[:NAME]", action="append", default=[], help="only this; may be repeated")
    test.add_argument("-k", dest="expression", metavar="EXPRESSION", help="pytest's -k, for tiers that pytest runs")

    play = verbs.add_parser("play", help="run a playbook with progress and timing", epilog=PLAY)
    play.usage = "redoubt play NAME [-i INVENTORY ...] [any option of ansible-playbook]"
    play.add_argument("name", metavar="NAME", help="site, or a playbook's name")
    play.add_argument(
        "-i",
        "--inventory",
        action="append",
        default=[],
        help="where the hosts are; may be repeated (inventories/demo)",
    )

    lab = verbs.add_parser("lab", help="throwaway hosts on this machine", epilog=LAB)
    lab.usage = "redoubt lab ACTION ..."
    lab.add_argument("arguments", metavar="ACTION ...", nargs=argparse.REMAINDER, help="see below")

    compare = verbs.add_parser("compare", help="what differs between hosts, or from records or a lock", epilog=COMPARE)
    compare.add_argument("left", metavar="A", help="a host's name, or a file")
    compare.add_argument("right", metavar="B", nargs="?", help="another one, or the same host at another time")
    compare.add_argument("--lock", metavar="LOCK", type=Path, help="a lock: its folder, or a depot's locks/SITE.json")
    compare.add_argument("--json", action="store_true", help="print the differences as JSON")

    bundle = verbs.add_parser("bundle", help="carry a site across a gap: plan, build, verify, import", add_help=False)
    bundle.add_argument("arguments", metavar="ACTION ...", nargs=argparse.REMAINDER)

    setup = verbs.add_parser("setup", help="make the Python environment (.venv) and stop", epilog=SETUP)
    setup.add_argument("--dev", action="store_true", help="also what the tests need")
    return top


def main(arguments: Sequence[str]) -> int:
    """Runs one verb; its exit code."""
    top = parser()
    options, rest = top.parse_known_args(list(arguments) or ["--help"])
    if rest and options.verb != "play":
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays in force
            signal.signal(number, _terminated)
    try:
        return _dispatch(options, rest)
    except KeyboardInterrupt:
        print("redoubt: interrupted", file=sys.stderr)
        return 130


def _terminated(number: int, frame: FrameType | None) -> None:
    """A polite kill unwinds like an error does: children are stopped, half-made hosts removed."""
    raise SystemExit(128 + number)


def _dispatch(options: argparse.Namespace, rest: list[str]) -> int:
    # Each verb imports what it needs, when it runs: --help must work before anything is installed.
    if options.verb == "setup":
        print("The Python environment is ready: .venv")
        return 0
    if options.verb == "bundle":
        from cli.bundle import main as bundle  # noqa: PLC0415  # see above

        return bundle(options.arguments)
    from cli.views import make_console  # noqa: PLC0415  # see above

    if options.verb == "play":
        from cli.play import play  # noqa: PLC0415  # see above

        return play(options.name, options.inventory, rest, make_console())
    if options.verb == "demo":
        from cli.demo import demo  # noqa: PLC0415  # see above

        return demo(make_console(), fresh=options.fresh, down=options.down)
    if options.verb == "compare":
        from cli.compare import compare  # noqa: PLC0415  # see above

        return compare(options, make_console())
    if options.verb == "lab":
        from cli.lab import lab  # noqa: PLC0415  # see above

        return lab(options.arguments, make_console(stderr=True))
    from cli.testing import test  # noqa: PLC0415  # see above

    return test(options, make_console())
