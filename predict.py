"""Classify new images with a finished run.

python predict.py output/run photos/ --top 3
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from dassl.utils import UserError, atomic_path
from dassl.utils.command_line import DONE, FAILED, Parser, path, run_program
from softcpt.hub import local_folder
from softcpt.image_paths import find_images
from softcpt.run_folder import read_record

IMAGES = "files, folders, patterns, CSV files with a column path, or -: a list on stdin"
CLASSES = "other classes: names separated by commas, or a file with a name per line"
OUT = "file to write instead of printing; .csv or .jsonl chooses the format"
EPILOG = """\
examples:
  python predict.py output/run photos/ --top 3
  python predict.py output/run 'photos/**/*.jpg' --format csv > found.csv
  find photos -name '*.jpg' | python predict.py output/run - --out found.jsonl
  python predict.py output/run photos/ --classes "oak, beech, maple"

Images are prepared as in the evaluation of the run. With several tasks there
is a line per image and task, unless --task chooses one. The training images
are not needed.

exit codes: 0 done, 1 some images could not be read (the others are
classified), 2 the command is refused
"""


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``.

    Raises:
        UserError: an unknown flag, or a value that a flag does not take.
    """
    parser = Parser(prog="predict.py", description=__doc__.split("\n")[0], epilog=EPILOG)
    add = parser.add_argument
    add("run", metavar="RUN", type=path, help="folder of a finished run, or hf-hub:owner/name")
    add("images", metavar="IMAGES", nargs="+", help=IMAGES)
    add = parser.add_argument_group("what to predict").add_argument
    add("--task", metavar="NAME", help="name or number of one task (default all)")
    add("--top", type=int, default=1, metavar="K", help="classes to show per image (default 1)")
    add("--classes", default="", metavar="NAMES", help=CLASSES)
    add("--task-name", default="", metavar="NAME", help="another name of the task in prompts")
    how = parser.add_argument_group("how")
    add = how.add_argument
    add("--format", default="", metavar="NAME", help="table, csv or jsonl (default table)")
    add("--out", default="", metavar="FILE", type=path, help=OUT)
    add("--device", default="auto", metavar="NAME", help="auto, cpu or cuda (default auto)")
    add("--batch-size", type=int, default=0, metavar="N", help="images per batch (as in the run)")
    add("--workers", type=int, default=0, metavar="N", help="processes that read (default 0)")
    add_run_flags(how)
    return parser.parse_args(argv)


def add_run_flags(group) -> None:
    """The flags that say how a run is loaded."""
    group.add_argument(
        "--load-epoch",
        type=int,
        default=None,
        metavar="N",
        help="epoch of the checkpoint; by default the final model",
    )
    group.add_argument(
        "--backbone", default="", metavar="NAME", help="where the backbone's file is now"
    )
    group.add_argument(
        "--root",
        default="",
        metavar="DIR",
        type=path,
        help="folder of the datasets, for old runs without tasks.json",
    )


def main(args: argparse.Namespace) -> int:
    """Classify the images; the exit code.

    Raises:
        UserError: no images, no such run, or a choice that its method does not allow.
    """
    read_record(local_folder(args.run), args.load_epoch)
    images = find_images(args.images, sys.stdin)
    from softcpt import load_run
    from softcpt.writers import choose_format

    if args.top < 1:
        raise UserError(f"--top takes a number of 1 or more, but is {args.top}")
    if os.path.isdir(args.out):
        raise UserError(f"--out takes a file, but {args.out} is a folder")
    form, classes = choose_format(args.format, args.out), read_classes(args.classes)
    run = load_run(
        args.run,
        device=args.device,
        epoch=args.load_epoch,
        backbone=args.backbone,
        root=args.root,
        task=args.task,
        classes=classes,
        task_name=args.task_name,
    )
    run.require_classes()
    ids = run.task_ids(args.task)
    unreadable = []
    with _output(args.out) as file:
        writer = form(file, run, ids, images, args.top)
        found = run.classify(images, args.task, args.top, args.batch_size, args.workers)
        for prediction in _with_progress(found, len(images), len(ids), args.out):
            if prediction.error:
                unreadable.append(prediction.error)
                print(f"not read: {prediction.error}", file=sys.stderr)
            writer.write(prediction)
    if unreadable:
        print(f"{len(unreadable)} of {len(images)} images could not be read", file=sys.stderr)
    return FAILED if unreadable else DONE


def read_classes(text: str) -> tuple[str, ...]:
    """Class names, separated by commas, or the lines of a file.

    Raises:
        UserError: there is no name in it.
    """
    if not text:
        return ()
    file, lines = os.path.expanduser(text), text.split(",")
    try:
        if os.path.isfile(file):  # pathlib fails on a long list of names
            lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the class names in {file}: {error}") from None
    names = tuple(name.strip() for name in lines if name.strip())
    if not names:
        raise UserError(f"--classes takes names separated by commas, or a file; got {text!r}")
    return names


@contextlib.contextmanager
def _output(out: str) -> Iterator[TextIO]:
    """The terminal, or a file that appears once it is complete."""
    if not out:
        yield sys.stdout
        return
    with (
        atomic_path(out) as temporary,
        # names of files that are no UTF-8 are written as on a terminal
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        yield file


def _with_progress(predictions: Iterator, images: int, tasks: int, out: str) -> Iterator:
    """The predictions, with a progress bar where the terminal does not show them."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() or (sys.stdout.isatty() and not out)
    with tqdm(total=images * tasks, unit=" images", disable=hidden, file=sys.stderr) as bar:
        for prediction in predictions:
            yield prediction
            bar.update(tasks if prediction.error else 1)


def command(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return run_program(lambda: main(parse_args(argv)), argv)


if __name__ == "__main__":
    sys.exit(command())
