"""The command line of the launcher. Importing this needs the standard library only, so that --help always works."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

EXIT_CODES = "exit codes: 0 ok, 1 something failed, 2 wrong usage, 130 interrupted (Ctrl-C)"

TOP = f"""
examples:
  ./redoubt demo                                      a whole service on a throwaway host on this machine
  ./redoubt play site -i inventories/single           install on the hosts of an inventory
  ./redoubt play verify -i inventories/single         ask the doctor
  ./redoubt test --quick                              lint and unit tests
  ./redoubt lab status                                the throwaway hosts

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
Tiers, in this order: lint, unit, molecule, e2e, and with --slow also bench.

examples:
  ./redoubt test                          everything that CI runs
  ./redoubt test --quick                  lint and unit
  ./redoubt test --only unit -k gateway   the unit tests whose names contain `gateway`
  ./redoubt test --only molecule:docker   one scenario
  ./redoubt test --only lint:mypy         one tool

The last line is `N passed, N failed`. {EXIT_CODES}
"""

LAB = f"""
Throwaway hosts on this machine: systemd containers that are reached by SSH, like a real server.

examples:
  ./redoubt lab up web1 --platform debian12
  ./redoubt lab status
  ./redoubt lab shell web1 -- systemctl --failed
  ./redoubt lab images                    build what is missing, list what there is
  ./redoubt lab down                      remove all hosts, networks and keys of the lab

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
    actions = lab.add_subparsers(dest="action", metavar="ACTION", required=True)
    up = actions.add_parser("up", help="start a host")
    up.add_argument("name", metavar="NAME")
    up.add_argument("--platform", choices=("debian13", "debian12"), default="debian13", help="default: debian13")
    down = actions.add_parser("down", help="remove a host, or everything the lab made")
    down.add_argument("name", metavar="NAME", nargs="?", help="without a name: all hosts, networks and keys")
    down.add_argument("--images", action="store_true", help="also what was built: images, model, media")
    down.add_argument("--engine", action="store_true", help="also stop the Docker Engine if the lab started it")
    status = actions.add_parser("status", help="list the hosts")
    status.add_argument("--json", action="store_true", help="as a JSON document")
    shell = actions.add_parser("shell", help="a shell, or one command, on a host by SSH")
    shell.add_argument("name", metavar="NAME")
    shell.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="default: an interactive shell")
    images = actions.add_parser("images", help="build what is missing")
    images.add_argument("--list", action="store_true", help="only list what there is")

    setup = verbs.add_parser("setup", help="make the Python environment (.venv) and stop", epilog=SETUP)
    setup.add_argument("--dev", action="store_true", help="also what the tests need")
    return top


def main(arguments: Sequence[str]) -> int:
    """Runs one verb; its exit code."""
    top = parser()
    options, rest = top.parse_known_args(list(arguments) or ["--help"])
    if rest and options.verb != "play":
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return _dispatch(options, rest)
    except KeyboardInterrupt:
        print("redoubt: interrupted", file=sys.stderr)
        return 130


def _dispatch(options: argparse.Namespace, rest: list[str]) -> int:
    """Imports only what the verb needs: a verb starts in a tenth of a second."""
    if options.verb == "setup":
        print("The Python environment is ready: .venv")
        return 0
    if options.verb == "play":
        from cli.play import play  # noqa: PLC0415  # see above
        from cli.views import make_console  # noqa: PLC0415  # see above

        return play(options.name, options.inventory, rest, make_console())
    raise NotImplementedError(options.verb)
