"""Both sides of every benchmark compute the same, and the command runs them."""

import json

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import _sides, evaluation, full_data, memory, methods, step, text
from benchmarks.gpu import VARIANTS
from dassl.utils import UserError

SIZES = [4, 1, 3]
STAND_IN = "tests.benchmarks._stand_in"


def unlike(found, expected):
    assert len(found) == len(expected)
    return max(((f - e).norm() / e.norm()).item() for f, e in zip(found, expected, strict=True))


@pytest.mark.parametrize("case", [{"sizes": SIZES}, {"sizes": [5], "images": 3, "n_ctx": 4}])
def test_text(case):
    naive, ours = (text.prepare(s, **case, backbone="tiny/random")() for s in ("naive", "ours"))
    assert naive[0].shape == (8 if len(case["sizes"]) == 3 else 15, 64)
    assert unlike(ours, naive) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_step(variant):
    """Three steps: momentum and weight decay, too."""
    case = {"variant": variant, "sizes": SIZES, "batch": 6, "backbone": "tiny/random"}
    learned = {}
    for side in ("naive", *step.SIDES):
        take = step.prepare(side, **case)
        start = [t.detach().clone() for t in take()]
        take()
        learned[side] = [t.detach() for t in take()]
        assert unlike(learned[side], start) > 1e-4  # something is learned
    assert unlike(learned["images"], learned["naive"]) < 1e-4
    assert unlike(learned["warm"], learned["images"]) < 1e-5


@pytest.mark.parametrize("method", methods.METHODS)
def test_methods(method, monkeypatch):
    """After two steps, all sides have learned the same."""
    monkeypatch.setattr(methods, "ITERATIONS", 10)  # of LP++, in which rounding grows
    case = {"method": method, "classes": 5, "batch": 3, "backbone": "tiny-vit/random"}
    learned = {}
    recomputed = ("checkpoint",) if method in ("PromptSRC", "CLIPLoRA") else ()
    for side in ("naive", *methods.sides_of(method), *recomputed):
        take = methods.prepare(side, **case)
        start = [t.detach().clone() for t in take()]
        learned[side] = [t.detach().clone() for t in take()]
        assert unlike(learned[side], learned["naive"]) < 1e-4
        assert method == "LPPlusPlus" or unlike(learned[side], start) > 1e-6


def test_evaluation():
    case = {"variant": "NATA", "sizes": SIZES, "images": 150, "backbone": "tiny/random"}
    naive, ours = (evaluation.prepare(side, **case)() for side in ("naive", "ours"))
    assert ours.shape == (150, 8)
    assert unlike([ours], [naive]) < 1e-5


def test_memory():
    """A step in chunks is the step itself, and its features are of random images."""
    learned = [
        [t.detach().clone() for t in memory.prepare(chunk, SIZES, "tiny/random", batch=6)()]
        for chunk in ("0", "64")
    ]
    assert unlike(learned[1], learned[0]) < 1e-5


def test_best_time(monkeypatch):
    clock = iter([0, 9, 10, 12, 20, 21, 30, 33, 40])
    monkeypatch.setattr(_sides.time, "perf_counter", lambda: next(clock))
    assert _sides.best_time(lambda: None) == 1  # of 9, 2, 1 and 3, the first to warm up
    clock = iter([0, 25])
    assert _sides.best_time(lambda: None) == 25


@pytest.mark.slow
def test_both_sides_under_both_settings(monkeypatch):
    monkeypatch.setenv("BENCHMARK_THREADS", "1")
    case = {"size": 100_000, "backbone": "tiny"}
    rows = _sides.compare(STAND_IN, {"two": case}, {"ours": "packed"})
    assert [row["what"] for row in rows] == [f"two, packed, {m}" for m in _sides.MALLOC]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["naive"] / row["ours"])
        assert row["ours"] > 0 and row["notes"].startswith("peak ")
    with pytest.raises(RuntimeError, match=rf"{STAND_IN} ours .* failed:(.|\n)*no backbone"):
        _sides.in_a_process(STAND_IN, "ours", {**case, "backbone": "RN5"}, "malloc keeps")
    case = {"sizes": [2], "backbone": "tiny/random"}
    assert _sides.in_a_process("benchmarks.text", "ours", case, "malloc keeps")["seconds"] > 0


@pytest.mark.slow
def test_full_data_in_miniature(monkeypatch):
    monkeypatch.setattr(full_data, "METHODS", 2)
    rows = full_data.measure(small=True)
    assert len(rows) == 11 and rows[-1][0] == "table of 30 runs"
    assert all(float(value) >= 0 for row in rows for value in row[1:])


def test_command(monkeypatch, tmp_path, capsys):
    row = {"what": "this", "naive": 3.0, "ours": 1.5, "ratio": 2.0, "notes": "peak"}
    monkeypatch.setattr(text, "run", lambda small: [{**row, "notes": str(small)}])
    monkeypatch.setenv("BENCHMARK_THREADS", "0")  # put back afterwards
    threads = torch.get_num_threads()
    out = tmp_path / "new" / "b.json"
    assert command.main(["text", "--small", "--threads", "1", "--out", str(out)]) == 0
    torch.set_num_threads(threads)
    content = json.loads(out.read_text())
    assert content["suites"] == {"text": [{**row, "notes": "True"}]}
    assert content["conditions"]["threads"] == 1
    assert "| this | 3.000 s | 1.500 s | **2.0x** | True |" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no suite named 'txt'; did you mean text\?"):
        command.main(["txt"])
    assert {"evaluation", "step", "text"} <= set(command.suites())
