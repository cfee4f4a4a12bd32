"""Inspect datasets before training on them.

    python -m datasets list                          all datasets and suites
    python -m datasets check OxfordPets --root DATA  numbers, splits, missing images; --deep decodes
    python -m datasets show OxfordPets --root DATA   a contact sheet
    python -m datasets shots OxfordPets --root DATA --export FILE DATASET.NUM_SHOTS 16 SEED 1
    python -m datasets make-mini General10 DATA      a miniature, to try things without a download

Instead of a name, give a YAML such as configs/datasets/suite.yaml; KEY VALUE pairs override the
configuration. Exit codes: 0 no problems, 1 check found problems, 2 error in the command.
"""

from __future__ import annotations

import argparse
import sys

from dassl.utils import UserError
from dassl.utils.command_line import Parser, path, run_program


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = Parser(
        prog="python -m datasets",
        description=__doc__,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    commands.add_parser("list", help="all datasets and suites")
    looks = {
        "check": "report numbers, splits and problems",
        "show": "write a contact sheet",
        "shots": "export few-shot draws to a file, or import them",
    }
    made = {}
    for name, text in looks.items():
        made[name] = commands.add_parser(name, help=text, description=text)
        made[name].add_argument("name", help="a dataset or suite, or the YAML of one")
        made[name].add_argument(
            "--root", default="", metavar="DIR", type=path, help="the data folder"
        )
        made[name].add_overrides("configuration keys")
    made["check"].add_argument(
        "--deep",
        action="store_true",
        help="also decode every image, and find test images that are copies of others",
    )
    sheet = made["show"]
    sheet.add_argument(
        "--output", metavar="PNG", type=path, help="default: output/datasets/<name>.png"
    )
    sheet.add_argument("--classes", type=int, default=60, help="largest number of classes (60)")
    sheet.add_argument("--images", type=int, default=4, help="images per class, at most (4)")
    way = made["shots"].add_mutually_exclusive_group(required=True)
    way.add_argument("--export", metavar="FILE", type=path, help="write the draws as JSON")
    way.add_argument(
        "--import", metavar="FILE", type=path, dest="source", help="use the draws of this JSON"
    )
    mini = commands.add_parser("make-mini", help="write a miniature in the original layout")
    mini.add_argument("name", help="a dataset or suite")
    mini.add_argument("folder", metavar="DIR", type=path, help="the folder to pass as --root")
    mini.add_argument("--per-class", type=int, default=6, help="images per class (6)")
    return parser.parse_args(argv)


def command() -> int:
    """Run the command line; the exit code."""
    return run_program(_start)


def _start() -> int:
    args = parse_args()
    from ._core.commands import COMMANDS  # imports torch

    try:
        return COMMANDS[args.command](args)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    sys.exit(command())
