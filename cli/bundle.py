"""`bundle`: plan, build, delta, sign on the connected side; verify, import, inventory on the far one.

Importing this, and the verbs of STANDALONE, need the standard library only: a bare machine must be able to judge a
bundle before anything of it is installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cli.shared_code import share

ROOT = Path(__file__).resolve().parents[1]
STANDALONE = ("verify", "import", "sign", "inventory")
DEPOT = Path("/srv/redoubt/depot")

EXAMPLES = """
the connected side:
  ./redoubt bundle plan                                  every file: size, hash, origin; and the total
  ./redoubt bundle build /media/usb --sign-key KEY       write the lock's bundle from the depot, and sign it
  ./redoubt bundle build OUT --volume-size 25G           in volumes for media of 25,000,000,000 bytes
  ./redoubt bundle delta OUT --against inventory.json    without what the far depot has
  ./redoubt bundle sign OUT --sign-key KEY               the signature of a second person

the far side:
  ./redoubt bundle verify /media/usb --key PUB           prove every byte; 0 good, 1 bad, 2 unreadable
  ./redoubt bundle import /media/usb --key PUB           into the depot; goes on where it was stopped
  ./redoubt bundle inventory > inventory.json            for the next delta
"""


def parser() -> argparse.ArgumentParser:
    """The verb's command line."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="redoubt bundle", description="Carry a site across a gap.", epilog=EXAMPLES, formatter_class=raw
    )
    verbs = top.add_subparsers(dest="action", metavar="ACTION", required=True)

    verify = verbs.add_parser("verify", help="prove a bundle with public keys alone")
    _judging(verify)
    verify.add_argument("--json", action="store_true", help="the report as JSON")

    import_ = verbs.add_parser("import", help="bring a bundle into a depot")
    _judging(import_)
    _depot(import_)
    import_.add_argument("--site", help="the site that it must be for")
    import_.add_argument("--allow-older", action="store_true", help="take an older lock than was published before")

    plan = verbs.add_parser("plan", help="what a bundle would carry; nothing is brought or written")
    _depot(plan)
    _lock(plan)
    plan.add_argument("--against", type=Path, metavar="FILE", help="the far side's inventory.json, or a manifest.json")
    plan.add_argument("--format", choices=["table", "json", "cyclonedx"], default="table")
    plan.add_argument("--new", action="store_true", help="in a table, only what would be carried")

    for name, text in (("build", "write a bundle"), ("delta", "write a bundle without what the far side has")):
        build = verbs.add_parser(name, help=text)
        build.add_argument("out", type=Path, metavar="OUT", help="an empty folder, or one with this bundle begun")
        _depot(build)
        _lock(build)
        build.add_argument("--against", type=Path, metavar="FILE", required=name == "delta", help="see plan")
        build.add_argument(
            "--volume-size", metavar="SIZE", help="such as 4G, 25G, 700Mi; without it there is one volume"
        )
        build.add_argument("--piece-size", metavar="SIZE", default="1Gi", help="the longest file (below 4Gi)")
        _secret(build, needed=False)

    sign = verbs.add_parser("sign", help="sign a bundle, also as the second person")
    sign.add_argument("folder", type=Path, metavar="DIR")
    _secret(sign, needed=True)

    inventory = verbs.add_parser("inventory", help="print what a depot holds, for a delta")
    _depot(inventory)
    return top


def _judging(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("folder", type=Path, metavar="DIR", help="the bundle")
    verb.add_argument("--key", action="append", default=[], metavar="PUB", help="a public key (file, or its text)")
    verb.add_argument("--keys", action="append", default=[], metavar="FOLDER", help="a folder of public keys (*.pub)")
    verb.add_argument("--signatures", type=int, default=1, metavar="N", help="by so many different keys (1)")
    verb.add_argument("--partial", action="store_true", help="volumes that are not here are no fault")


def _depot(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--depot", type=Path, default=DEPOT, metavar="FOLDER", help=f"the depot ({DEPOT})")


def _lock(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--lock", type=Path, default=ROOT / "lock", metavar="FOLDER", help="the site's lock (lock)")


def _secret(verb: argparse.ArgumentParser, needed: bool) -> None:
    verb.add_argument("--sign-key", type=Path, required=needed, metavar="FILE", help="minisign's secret key")
    verb.add_argument("--password-file", type=Path, metavar="FILE", help="its password; else minisign asks")


def main(arguments: Sequence[str]) -> int:
    """Run one action; its exit code: 0 good, 1 refused or bad, 2 unreadable or wrong usage."""
    share()
    from cli import bundle_actions as does  # noqa: PLC0415  # our shared code has its name only after share()

    options = parser().parse_args(list(arguments))
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "verify": does.verify,
        "import": does.import_,
        "plan": does.plan,
        "build": does.build,
        "delta": does.build,
        "sign": does.sign,
        "inventory": does.inventory,
    }
    try:
        return actions[options.action](options)
    except does.Unreadable as error:
        print(f"redoubt: {error}", file=sys.stderr)
        return 2
    except (does.Refusal, does.Busy) as error:
        print(f"redoubt: {error}", file=sys.stderr)
    except OSError as error:
        print(f"redoubt: {error.filename or options.action}: {error.strerror or error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("redoubt: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 1
