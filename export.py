"""Write what a finished run learned in a form that others can use.

python export.py output/run exported/run
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from dassl.utils import UserError, size_in_words, unknown_name
from dassl.utils.command_line import Parser, path, run_program
from predict import add_run_flags
from softcpt.export_folder import refuse_existing
from softcpt.exporting import KINDS
from softcpt.hub import check_push, local_folder, push
from softcpt.run_folder import read_record

EPILOG = """\
what --as writes into the folder OUT, each with a README that shows its use:
  weights    a weight vector per class, for ten lines of plain open_clip
  onnx       image tower and classifier in one file, for onnxruntime (it needs
             the packages onnx and onnxscript)
  open_clip  the backbone with what was learned in its weights, for open_clip
             (CLIPLoRA and TwoStage only)
  prompts    the learned parameters, for predict.py and softcpt.load_run

Methods whose text features depend on the image (CoCoOp) can only be exported
as prompts, those that score images in another way than by class weights
(adapters, probes) as onnx or prompts.

examples:
  python export.py output/run exported --as onnx --task "kind of flower"
  python export.py output/run exported --as prompts --push-to owner/my-prompts

exit codes: 0 done, 1 the export failed, 2 the command is refused
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``.

    Raises:
        UserError: an unknown flag, or a value that a flag does not take.
    """
    parser = Parser(
        prog="export.py",
        description="Export what a finished run learned, for use in other programs.",
        epilog=EPILOG,
    )
    parser.add_argument("run", metavar="RUN", type=path, help="folder of a finished run")
    parser.add_argument("out", metavar="OUT", type=path, help="folder to write; it must not exist")
    kinds = f"form: {', '.join(KINDS)} (default weights)"
    parser.add_argument("--as", dest="kind", default="weights", metavar="KIND", help=kinds)
    parser.add_argument("--task", metavar="NAME", help="name or number of one task (default all)")
    parser.add_argument(
        "--calibrated", action="store_true", help="with --as weights: include the temperatures"
    )
    push = parser.add_argument_group("the Hugging Face hub, with --as prompts")
    push.add_argument(
        "--push-to", default="", metavar="NAME", help="also upload to the repository owner/name"
    )
    push.add_argument(
        "--public", action="store_true", help="make a new repository public (default private)"
    )
    add_run_flags(parser)
    args = parser.parse_args(argv)
    if args.push_to and args.kind != "prompts":
        parser.error("--push-to goes with --as prompts")
    if args.public and not args.push_to:
        parser.error("--public goes with --push-to")
    return args


def main(args: argparse.Namespace) -> None:
    """Write the export, and print its files.

    Raises:
        UserError: no such run, an existing folder, a kind that the method does not allow, or
            the export was written and not uploaded.
    """
    if args.kind not in KINDS:
        raise unknown_name("kind of export", args.kind, KINDS)
    folder = Path(args.out)
    refuse_existing(folder)
    read_record(local_folder(args.run), args.load_epoch)
    if args.push_to:
        check_push(args.push_to)
    from softcpt import export_run, load_run

    run = load_run(
        args.run, device="cpu", epoch=args.load_epoch, backbone=args.backbone, root=args.root
    )
    for file in export_run(run, folder, args.kind, args.task, args.calibrated):
        print(f"{file}  {size_in_words(file.stat().st_size)}")
    if args.push_to:
        print(f"pushed to {_push(folder, args.push_to, args.public)}")


def _push(folder: Path, name: str, public: bool) -> str:
    """Upload the export; its address.

    Raises:
        UserError: it was not uploaded; the message says where it is, and how to try again.
    """
    try:
        return push(folder, name, public)
    except UserError as error:
        private = "" if public else " --private"
        raise UserError(
            f"{error}; the export is complete in {folder}: upload it later with `hf upload {name} "
            f"{shlex.quote(str(folder))}{private}`"
        ) from None


def command(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return run_program(lambda: main(parse_args(argv)), argv)


if __name__ == "__main__":
    sys.exit(command())
