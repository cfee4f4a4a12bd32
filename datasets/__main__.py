"""Inspect datasets before training on them.

  python -m datasets list
  python -m datasets check OxfordPets --root DATA
  python -m datasets show OxfordPets --root DATA
  python -m datasets shots OxfordPets --root DATA --export FILE \\
      DATASET.NUM_SHOTS 16 SEED 1
  python -m datasets make-mini General10 DATA

Instead of a name, give a YAML such as configs/datasets/suite.yaml. `COMMAND
--help` shows the flags of a command.

exit codes: 0 no problems, 1 check found problems, 2 the command is refused
"""

from __future__ import annotations

import argparse
import sys

from dassl.utils import UserError
from dassl.utils.command_line import Parser, path, run_program

LIST = "Print all datasets and suites."
MINI = "Write a miniature of a dataset, in its original layout."


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = Parser(
        prog="python -m datasets",
        description=__doc__,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    commands.add_parser("list", help=LIST, description=LIST)
    looks = {
        "check": "Report the numbers of images and classes, splits and problems.",
        "show": "Write a contact sheet: images of each class, with its name.",
        "shots": "Export the few-shot draws of a dataset to a file, or import them.",
    }
    made = {}
    for name, text in looks.items():
        made[name] = commands.add_parser(name, help=text, description=text)
        made[name].add_argument("name", metavar="NAME", help="a dataset or suite, or its YAML")
        made[name].add_argument(
            "--root", default="", metavar="DIR", type=path, help="folder that contains the datasets"
        )
        made[name].add_overrides("configuration keys and values")
    made["check"].add_argument(
        "--deep",
        action="store_true",
        help="also decode every image: find broken, copied, transparent and rotated ones",
    )
    sheet = made["show"]
    sheet.add_argument(
        "--output",
        metavar="PNG",
        type=path,
        help="file to write (default output/datasets/NAME.png)",
    )
    sheet.add_argument(
        "--classes",
        type=int,
        default=60,
        metavar="N",
        help="largest number of classes (default 60)",
    )
    sheet.add_argument(
        "--images", type=int, default=4, metavar="N", help="largest number per class (default 4)"
    )
    way = made["shots"].add_mutually_exclusive_group(required=True)
    way.add_argument("--export", metavar="FILE", type=path, help="JSON file to write the draws to")
    way.add_argument(
        "--import",
        metavar="FILE",
        type=path,
        dest="source",
        help="JSON file to take the draws from",
    )
    mini = commands.add_parser("make-mini", help=MINI, description=MINI)
    mini.add_argument("name", metavar="NAME", help="a dataset or suite")
    mini.add_argument(
        "folder", metavar="DIR", type=path, help="folder to write, then passed as --root"
    )
    mini.add_argument(
        "--per-class", type=int, default=6, metavar="N", help="images per class (default 6)"
    )
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
