"""The words nearest to learned context tokens, and the similarity of tasks' contexts.

    python interpret_prompt.py output/run

Distances are Euclidean, to the text tower's token embeddings, as CoOp measures them. Nearest words
of a learned context rarely form a sentence: they only show distances in that space.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import softcpt
from dassl.utils import UserError, atomic_path
from dassl.utils.command_line import Parser, path, run_program
from predict import add_run_flags
from results.figures import draw_similarity
from softcpt.run_folder import read_record

EPILOG = """\
example:
  python interpret_prompt.py output/run --top 5

It writes words.csv, similarity.csv, similarity.png and similarity.svg.

exit codes: 0 done, 1 it failed, 2 the command is refused
"""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = Parser(
        prog="interpret_prompt.py",
        description="Words nearest to learned contexts, and the similarity of tasks' contexts.",
        epilog=EPILOG,
    )
    parser.add_argument("run", metavar="RUN", type=path, help="folder of a finished run")
    parser.add_argument(
        "--top", type=int, default=3, metavar="K", help="words per context token (default 3)"
    )
    parser.add_argument(
        "--out",
        default="",
        metavar="DIR",
        type=path,
        help="folder to write (default RUN/interpret)",
    )
    add_run_flags(parser)
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print the nearest words; write the files.

    Raises:
        UserError: no such run, or it learned no context.
    """
    if args.top < 1:
        raise UserError(f"--top takes a number of 1 or more, but is {args.top}")
    trainers = load_run(Path(args.run), args.root, args.load_epoch, args.backbone)
    from prompting.interpret import words_of  # imports torch

    lines = [line for task, trainer in trainers for line in words_of(task, trainer, args.top)]
    if not lines:
        raise UserError(f"the method of {args.run} learns no context of tokens: nothing to show")
    folder = Path(args.out or Path(args.run) / "interpret")
    head = ("context", "token", "rank", "word", "distance")
    _write_csv(folder / "words.csv", [head, *lines])
    _print_words(lines)
    print(f"words: {folder / 'words.csv'}")
    for _, trainer in trainers:
        _similarity(trainer, folder)


def load_run(
    folder: Path, root: str = "", epoch: int | None = None, backbone: str = ""
) -> list[tuple[str, object]]:
    """The trained trainers of a run, with the name of the task if there is one per task.

    Raises:
        UserError: there is no such run, or it is not complete.
    """
    read_record(folder, epoch)  # before torch is imported
    parts = softcpt.load_run(folder, root=root, epoch=epoch, backbone=backbone).trainers
    if len(parts) == 1:
        return [("", parts[0])]
    return [(part.dm.space.tasks[0].name, part) for part in parts]


def _similarity(trainer, folder: Path) -> None:
    from prompting.interpret import similarity, task_contexts

    contexts = task_contexts(trainer)
    if contexts is None or len(contexts) < 2:
        return
    names = [task.name for task in trainer.dm.space.tasks]
    matrix = similarity(contexts).cpu().tolist()
    rows = [[name, *(f"{v:.6f}" for v in row)] for name, row in zip(names, matrix, strict=True)]
    _write_csv(folder / "similarity.csv", [["", *names], *rows])
    for suffix in (".png", ".svg"):
        print(f"figure: {draw_similarity(matrix, names, folder / f'similarity{suffix}')}")


def _print_words(lines: list[tuple]) -> None:
    tokens: dict[tuple[str, int], list[str]] = {}
    for name, token, _, word, distance in lines:
        tokens.setdefault((name, token), []).append(f"{word} ({distance:.3f})")
    last = None
    for (name, token), words in tokens.items():
        if name != last:
            print(f"{name}: nearest words of each token, with distances")
        print(f"  {token:>2}  {', '.join(words)}")
        last = name


def _write_csv(path: Path, rows: list) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def command(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    return run_program(lambda: main(parse_args(argv)), argv, writes_files=True)


if __name__ == "__main__":
    sys.exit(command())
