"""`python -m cortex_provider.issuer keys list|rotate|retire`: the keys that the issuer makes itself."""

from __future__ import annotations

import argparse
import sys
from datetime import timedelta

from cortex_provider.issuer import settings
from cortex_provider.issuer.errors import Misconfigured
from cortex_provider.issuer.folder import KeyFolder

DEFAULT_OVERLAP = 3600


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; answers the exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        if settings.issuer_key() or settings.issuer_key_file():
            raise Misconfigured("[cortex] issuer_key or issuer_key_file is set: rotate the keys where those come from")
        folder = KeyFolder(settings.issuer_keys_folder())
        if parsed.command == "rotate":
            made = folder.rotate(timedelta(seconds=parsed.overlap))
            print(f"{made.key.kid} is published, and signs from {made.signs_from.isoformat()}")
        elif parsed.command == "retire":
            print(f"{folder.retire(parsed.kid, parsed.force).key.kid} is deleted")
        else:
            _list(folder)
    except Misconfigured as fault:
        print(fault, file=sys.stderr)
        return 1
    return 0


def _list(folder: KeyFolder) -> None:
    stored = folder.stored()
    if not stored:
        print("no keys yet: the API server makes the first one")
        return
    signing = folder.signing(stored)
    order = stored.index(signing)
    for at, one in enumerate(stored):
        role = "signs" if one is signing else "published only" if at < order else "waits to sign"
        print(f"{one.key.kid}  from {one.signs_from.isoformat()}  {role}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cortex_provider.issuer", description=__doc__)
    keys = parser.add_subparsers(required=True).add_parser("keys", help="the keys that sign ID tokens")
    commands = keys.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="list the keys, the oldest first")
    rotate = commands.add_parser("rotate", help="make a new key, which signs after an overlap")
    rotate.add_argument(
        "--overlap",
        type=_seconds,
        default=DEFAULT_OVERLAP,
        metavar="SECONDS",
        help=f"how long it is only published (default {DEFAULT_OVERLAP})",
    )
    retire = commands.add_parser("retire", help="delete a key that no longer signs")
    retire.add_argument("kid", help="the key's name")
    retire.add_argument("--force", action="store_true", help="even while tokens that it signed may live")
    return parser


def _seconds(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 30 * 86400:
        raise argparse.ArgumentTypeError("0 to 30 days, in seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
