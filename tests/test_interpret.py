"""interpret_prompt.py: words near contexts whose neighbours are known."""

import csv

import pytest
import torch

import interpret_prompt
import train
from prompting import interpret
from tests.conftest import toy_args


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_nearest_words_of_known_contexts(build):
    """A context that starts as words is nearest to those words, at distance 0."""
    trainer = build("MTCoOpHard", "TRAINER.MTCOOPH.CTX_INIT", "a small photo")
    lines = list(interpret.words_of("", trainer, top=2))
    words = ["a", "small", "photo"]
    assert lines[::2] == [("prompts", i, 1, word, 0.0) for i, word in enumerate(words)]
    assert len(lines) == 6 and all(d > 0 for *_, rank, _, d in lines if rank == 2)


def test_contexts_per_class_are_named(build):
    trainer = build("CoOp", "TRAINER.COOP.CSC", "True", "TRAINER.COOP.N_CTX", "2")
    part = trainer.task_trainers[1]
    vocabulary = len(part.model.text_tower.token_embedding.weight)
    everything = list(interpret.words_of("", part, top=10**6))
    assert max(rank for _, _, rank, *_ in everything) == vocabulary
    names = [name for name, _ in interpret.contexts_of("light or dark", part)]
    assert names == [f"light or dark: prompts of {c}" for c in part.dm.space.classnames]


@pytest.mark.parametrize("csc", [False, True])
def test_generated_contexts_and_their_likeness(build, csc):
    trainer = build("MTCoOp", "TRAINER.MTCOOP.CSC", str(csc), "TRAINER.MTCOOP.N_CTX", "3")
    contexts = interpret.task_contexts(trainer)
    assert contexts.shape == (3, 3, trainer.model.text_tower.width)
    made = trainer.model.prompter.generated_contexts(trainer.model.text_tower)
    owner = trainer.dm.space.owner
    for t in range(3):
        expected = made[owner == t].mean(0) if csc else made[t]
        assert torch.allclose(contexts[t], expected)
    matrix = interpret.similarity(contexts)
    a, b = contexts[0].flatten(), contexts[2].flatten()
    assert matrix[0, 2].item() == pytest.approx((a @ b / a.norm() / b.norm()).item(), abs=1e-5)
    assert torch.allclose(matrix.diagonal(), torch.ones(3), atol=1e-5)


@pytest.mark.parametrize("csc", [False, True])
def test_several_contexts_of_a_class_are_numbered(build, csc):
    """PLOT has four that all classes share, as many as this task has classes; or four per class."""
    options = ("TRAINER.PLOT.N", "4", "TRAINER.PLOT.CSC", str(csc))
    trainer = build("PLOT", "DATASET.SUBSAMPLE_TASKS", "task2", *options)
    names = [name for name, _ in interpret.contexts_of("", trainer)]
    assert len(trainer.dm.space.classnames) == 4
    assert names == [f"prompts of {i}" for i in range(16 if csc else 4)]


@pytest.mark.parametrize("method", ["MaPLe", "PromptSRC"])
def test_contexts_of_several_blocks(build, method):
    """They are learned, not generated; those of the first block have words."""
    trainer = build(method, "DATASET.SUBSAMPLE_TASKS", "task2")
    names = [name for name, *_ in interpret.words_of("", trainer, top=1)]
    assert names == ["contexts"] * trainer.model.prompter.contexts.ctx.shape[0]
    assert interpret.task_contexts(trainer) is None


def test_the_command(toy, tmp_path, capsys):
    args = toy_args("MTCoOp", "TRAINER.MTCOOP.N_CTX", "2", output=tmp_path / "run")
    train.main(args)
    capsys.readouterr()
    assert interpret_prompt.command([str(tmp_path / "run"), "--top", "2"]) == 0
    out = capsys.readouterr().out
    assert "generated for stripes: nearest words of each token" in out
    folder = tmp_path / "run" / "interpret"
    head, *lines = rows(folder / "words.csv")
    assert head == ["context", "token", "rank", "word", "distance"]
    generated = [line for line in lines if line[0].startswith("generated")]
    assert len(generated) == 3 * 2 * 2 and all(line[3] for line in lines)
    names, *matrix = rows(folder / "similarity.csv")
    assert names == ["", "kind_of colour", "light or dark", "stripes"]
    assert [row[i + 1] for i, row in enumerate(matrix)] == ["1.000000"] * 3
    assert (folder / "similarity.png").stat().st_size > 1000
    assert (folder / "similarity.svg").read_text().startswith("<?xml")


def test_a_backbone_that_has_moved(toy, tmp_path, capsys):
    train.main(toy_args("CoOp", "DATASET.SUBSAMPLE_TASKS", "task0", output=tmp_path / "run"))
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("tiny/random", "gone/weights.pt"))
    assert interpret_prompt.command([str(tmp_path / "run")]) == 2
    assert "--backbone" in capsys.readouterr().err
    assert interpret_prompt.command([str(tmp_path / "run"), "--backbone", "tiny/random"]) == 0


def test_runs_that_have_nothing_to_show(toy, tmp_path, capsys):
    assert interpret_prompt.command([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    train.main(toy_args("ZeroshotCLIP", output=tmp_path / "zs"))
    assert interpret_prompt.command([str(tmp_path / "zs")]) == 2
    assert "learns no context of tokens" in capsys.readouterr().err
    assert interpret_prompt.command([str(tmp_path / "zs"), "--top", "0"]) == 2
    assert "--top" in capsys.readouterr().err
