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
from typing import Any

from dassl.utils.command_line import Parser, path, run_program

LIST = "Print all datasets and suites."
LOOKS = {
    "check": "Report the numbers of images and classes, splits and problems.",
    "show": "Write a contact sheet: images of each class, with its name.",
    "shots": "Export the few-shot draws of a dataset to a file, or import them.",
}
FOLDER: dict[str, Any] = {"metavar": "DIR", "type": path}  # options of flags
FILE: dict[str, Any] = {"metavar": "FILE", "type": path}
NUMBER: dict[str, Any] = {"metavar": "N", "type": int}
MINI = "Write a miniature of a dataset, in its original layout."


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = Parser(
        prog="python -m datasets",
        description=__doc__,
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    commands.add_parser("list", help=LIST, description=LIST)
    made = {}
    for name, text in LOOKS.items():
        made[name] = commands.add_parser(name, help=text, description=text)
        add = made[name].add_argument
        add("name", metavar="NAME", help="a dataset or suite, or its YAML")
        add("--root", default="", help="folder that contains the datasets", **FOLDER)
        made[name].add_overrides("configuration keys and values")
    deep = "also decode every image: find broken, copied, transparent and rotated ones"
    made["check"].add_argument("--deep", action="store_true", help=deep)
    add = made["show"].add_argument
    add("--output", metavar="PNG", type=path, help="to write; default output/datasets/NAME.png")
    add("--classes", default=60, help="largest number of classes (default 60)", **NUMBER)
    add("--images", default=4, help="largest number per class (default 4)", **NUMBER)
    add = made["shots"].add_mutually_exclusive_group(required=True).add_argument
    add("--export", help="JSON file to write the draws to", **FILE)
    add("--import", help="JSON file to take the draws from", dest="source", **FILE)
    mini = commands.add_parser("make-mini", help=MINI, description=MINI)
    mini.add_argument("name", metavar="NAME", help="a dataset or suite")
    mini.add_argument("folder", help="folder to write, then passed as --root", **FOLDER)
    mini.add_argument("--per-class", default=6, help="images per class (default 6)", **NUMBER)
    return parser.parse_args(argv)


def command() -> int:
    """Run the command line; the exit code."""
    return run_program(_start, writes_files=True)


def _start() -> int:
    args = parse_args()
    from ._core.commands import COMMANDS  # imports torch

    return COMMANDS[args.command](args)


if __name__ == "__main__":
    sys.exit(command())
