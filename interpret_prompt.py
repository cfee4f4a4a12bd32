"""The words nearest to learned context tokens, and the similarity of tasks' contexts.

    python interpret_prompt.py output/run

Distances are Euclidean, to the text tower's token embeddings, as CoOp measures them. Nearest words
of a learned context rarely form a sentence: they only show distances in that space.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

import train
from clip import TextTower
from dassl.engine import build_trainer
from dassl.utils import UserError, atomic_path
from dassl.utils.command_line import Parser, path, run_program
from results.figures import draw_similarity


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; ``None`` reads ``sys.argv``."""
    parser = Parser(
        prog="interpret_prompt.py",
        description="Vocabulary words nearest to learned contexts; similarity of tasks' contexts.",
        epilog="writes words.csv, similarity.csv, similarity.png and similarity.svg to --out",
    )
    parser.add_argument("run", metavar="RUN", type=path, help="folder of a finished run")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="words per context token")
    parser.add_argument("--load-epoch", type=int, default=None, metavar="N", help="epoch to load")
    parser.add_argument(
        "--root", default="", metavar="DIR", type=path, help="folder of the datasets"
    )
    parser.add_argument(
        "--out", default="", metavar="DIR", type=path, help="instead of RUN/interpret"
    )
    return parser.parse_args(argv)


def main(args: argparse.Namespace) -> None:
    """Print the nearest words; write the files.

    Raises:
        UserError: no such run, or it learned no context.
    """
    if args.top < 1:
        raise UserError(f"--top takes a number of 1 or more, but is {args.top}")
    trainers = load_run(Path(args.run), args.root, args.load_epoch)
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


def load_run(folder: Path, root: str = "", epoch: int | None = None) -> list[tuple[str, object]]:
    """The trained trainers of a run, with the name of the task if there is one per task.

    Raises:
        UserError: there is no such run, or no checkpoint in it.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise UserError(f"there is no {config}; give the folder of a run")
    words = ["--config-file", str(config), "--output-dir", str(folder), "--root", root]
    cfg = train.setup_cfg(train.parse_args([*words, "VERBOSE", "False"]))
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = build_trainer(cfg)
        trainer.load_model(str(folder), epoch=epoch)
    parts = trainer.task_trainers
    if parts == [trainer]:
        return [("", trainer)]
    return [(task.name, part) for task, part in zip(trainer.space.tasks, parts, strict=True)]


def words_of(task: str, trainer, top: int) -> Iterator[tuple[str, int, int, str, float]]:
    """Context, token, rank, word and distance, for every learned and generated context."""
    text = trainer.clip.text_tower
    for name, contexts in contexts_of(task, trainer):
        distances = nearest_words(contexts, text, top)
        for token, found in enumerate(distances):
            for rank, (word, distance) in enumerate(found, start=1):
                yield name, token, rank, word, round(distance, 4)


def contexts_of(task: str, trainer) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and tokens (m, d) of the contexts that a trainer learned or generates."""
    prompter, space = trainer.model.prompter, trainer.dm.space
    prefix = f"{task}: " if task else ""
    for name, parameter in prompter.named_parameters():
        if name.split(".")[-1] == "ctx" and parameter.dim() in (2, 3):
            part = name.removesuffix(".ctx").removesuffix("ctx").strip(".") or "context"
            groups = parameter.detach()[None] if parameter.dim() == 2 else parameter.detach()
            owners = {len(space.tasks): [t.name for t in space.tasks]}
            owners[space.num_classes] = list(space.classnames)
            labels = owners.get(len(groups), [str(i) for i in range(len(groups))])
            for label, tokens in zip(labels, groups, strict=True):
                yield f"{prefix}{part}{f' of {label}' if len(groups) > 1 else ''}", tokens
    generated = task_contexts(trainer)
    if generated is not None:
        for one, tokens in zip(space.tasks, generated, strict=True):
            yield f"generated for {one.name}", tokens


@torch.no_grad()
def task_contexts(trainer) -> torch.Tensor | None:
    """The contexts that a meta network generates, (T, m, d); per-class ones as their task's mean.

    None for methods without one.
    """
    model = trainer.model
    make = getattr(model.prompter, "contexts", None)
    if make is None:
        return None
    contexts, space = make(model.text_tower), trainer.dm.space
    if len(contexts) == len(space.tasks) and len(contexts) != space.num_classes:
        return contexts
    owner = space.owner.to(contexts.device)
    return torch.stack([contexts[owner == t].mean(0) for t in range(len(space.tasks))])


def nearest_words(tokens: torch.Tensor, text: TextTower, top: int) -> list[list[tuple[str, float]]]:
    """For each of m tokens (m, d), the ``top`` nearest entries of the vocabulary and distances."""
    vocabulary = text.token_embedding.weight.detach().float()  # (V, d)
    exact = "donot_use_mm_for_euclid_dist"  # products would round small distances away
    distances = torch.cdist(tokens.float().to(vocabulary.device), vocabulary, compute_mode=exact)
    found = distances.topk(top, largest=False)
    return [
        [
            (text.tokenizer.decode([i]).strip() or f"token {i}", d)
            for i, d in zip(ids, row, strict=True)
        ]
        for ids, row in zip(found.indices.tolist(), found.values.tolist(), strict=True)
    ]


def similarity(contexts: torch.Tensor) -> torch.Tensor:
    """Cosines (T, T) between contexts (T, m, d), each taken as one long vector."""
    flat = F.normalize(contexts.float().flatten(1), dim=1)
    return flat @ flat.T


def _similarity(trainer, folder: Path) -> None:
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
    return run_program(lambda: main(parse_args(argv)), argv)


if __name__ == "__main__":
    sys.exit(command())
