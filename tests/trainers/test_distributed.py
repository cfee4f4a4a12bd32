"""A run of several processes is the run of one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import prompting.text_chunks as text_memory
import train
from dassl.data import build_data_loader
from dassl.engine import TrainerX
from dassl.utils import UserError, distributed, load_checkpoint
from tests._processes import in_processes
from tests.conftest import toy_args

ROOT = Path(train.__file__).parent
STEPS = ("OPTIM.MAX_EPOCH", 5, "OPTIM.LR", 0.02)  # of 4 batches each, on the suite
CSTA = ("MTCOOP.CSC", "MTCOOP.CLASS_CSC")
# A batch holds all images of one of CoOp's tasks, so that an epoch is one step. At ten times its
# rate rounding alone, which the share of a batch changes, grows to 1e-5 in these steps.
SLOWLY = ("OPTIM.MAX_EPOCH", 20, "OPTIM.LR", 0.002)
QUESTIONS = (*SLOWLY, "OPTIM.MAX_EPOCH", 5, "DATASET.NAME", "ToyQuestions")
FEW = (*SLOWLY, "OPTIM.MAX_EPOCH", 2)
DEEP = (
    *("MODEL.BACKBONE.NAME", "tiny-vit/random", "TRAINER.MTCOOP.DEPTH", 2, "OPTIM.MAX_EPOCH", 2),
    *("TRAINER.MTCOOP.IMAGE_PROMPTS", True, "TRAINER.MTCOOP.ANCHOR_LOGITS", 1.0),
)
SHALLOW = ("TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 3, "TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2)
RUNS = {
    "NATA": ("MTCoOp", STEPS),
    "CSTA": ("MTCoOp", (*STEPS, "TRAINER.MTCOOP.CLS_SAMPLE_RATE", 0.4), *CSTA),
    "CSTS": ("MTCoOp", STEPS, *CSTA, "MTCOOP.TASK_CSC"),
    "CoOp": ("CoOp", SLOWLY),
    "CoOp-CS": ("CoOp", SLOWLY, "COOP.CSC"),
    "MaPLe": ("MaPLe", (*SLOWLY, "OPTIM.MAX_EPOCH", 4, "TRAINER.MAPLE.PROMPT_DEPTH", 2)),
    "PromptSRC": ("PromptSRC", (*SLOWLY, "OPTIM.MAX_EPOCH", 4, *SHALLOW)),
    "TCP": ("TCP", (*FEW, "TRAINER.TCP.LAYER", 1, "TRAINER.TCP.N_CTX", 4)),
    "DePT": ("DePT", FEW),
    "TaskRes": ("TaskRes", FEW),
    "VPT": ("VPT", FEW),
    "IVLP": ("IVLP", FEW),
    "MMA": ("MMA", (*STEPS, "TRAINER.MMA.START", 1, "TRAINER.MMA.END", 2)),
    "SoftCPT in depth": ("MTCoOp", (*STEPS, *DEEP)),
    "questions": ("CoOp", (*QUESTIONS, "MODEL.TEXT_CHUNK", 32)),
}

SLOW = ("CSTS", "CoOp-CS", "PromptSRC", "TCP", "DePT", "TaskRes", "VPT", "IVLP", "MMA")


@pytest.fixture(autouse=True)
def divide_all_rows(monkeypatch):
    """The toy suite has few classes: divide them nevertheless."""
    monkeypatch.setattr("prompting.sharding.MIN_PROMPTS", 1)


CONTEXTS = {
    "MTCoOp": {"MTCOOP.N_CTX": 4, "MTCOOP.TASK_N_CTX": 3, "MTCOOP.CLASS_N_CTX": 2},
    "CoOp": {"COOP.N_CTX": 4},
}


def words(method, *switches):
    pairs = CONTEXTS.get(method, {}) | dict.fromkeys(switches, True)
    return [word for key, value in pairs.items() for word in (f"TRAINER.{key}", value)]


def learned(folder):
    """All learned numbers of a run at its end, of all tasks."""
    paths = sorted(folder.rglob("model.pth.tar-*"))
    assert paths
    states = [load_checkpoint(path)["state_dict"] for path in paths]
    return torch.cat([value.flatten() for state in states for value in state.values()])


def both(run, tmp_path, method, *opts, count=2):
    """Results and weights of one process, and of several."""
    one = run(method, *opts, output=tmp_path / "one")
    args = toy_args(method, *opts, output=tmp_path / "many")
    assert in_processes(lambda: train.main(args), count) == [0] * count
    many = train.main(args)  # complete: read, not run again
    assert many["run"]["processes"] == count
    return one, many


def distance(tmp_path):
    a, b = learned(tmp_path / "many"), learned(tmp_path / "one")
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in RUNS],
)
def test_two_processes_learn_what_one_does(run, asked, tmp_path, name):
    method, steps, *switches = RUNS[name]
    one, many = both(run, tmp_path, method, *words(method, *switches), *steps)
    assert distance(tmp_path) <= 1e-5
    assert many["tasks"] == one["tasks"]
    assert many["hashes"] == one["hashes"]


@pytest.mark.slow
def test_all_kinds_of_label(run, tmp_path):
    """The measures and the bias are equal up to rounding."""
    labels = ("DATASET.NAME", "DigitLabels", "DATASET.NUM_SHOTS", 1, "OPTIM.LOGIT_BIAS", "auto")
    one, many = both(run, tmp_path, "MTCoOp", *words("MTCoOp"), *labels, *FEW)
    assert distance(tmp_path) <= 1e-5
    kinds = [(task["metric"], list(task.get("measures", ()))) for task in one["tasks"]]
    assert kinds == [("overall_acc", ["MAE"]), ("mAP", ["F1"]), ("overall_acc", [])]
    assert many["tasks"][1]["bias"] == pytest.approx(one["tasks"][1]["bias"], abs=1e-4)
    for ours, theirs in zip(many["tasks"], one["tasks"], strict=True):
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-4)
        assert ours.get("measures", {}) == pytest.approx(theirs.get("measures", {}), rel=1e-4)


def test_processes_with_unlike_memory_do_alike(run, asked, tmp_path, monkeypatch):
    """What one computes again in the backward pass, and waits for the other to, both do."""

    def free(device):
        return 10**12 if distributed.is_main() else 10

    monkeypatch.setattr(text_memory, "MIN_CHUNK", 16)
    one = run("CoOp", *QUESTIONS, output=tmp_path / "one")
    monkeypatch.setattr(text_memory, "free_memory", free)
    args = toy_args("CoOp", *QUESTIONS, output=tmp_path / "many")
    assert in_processes(lambda: train.main(args)) == [0, 0]
    assert "; in chunks of 16 rows" in (tmp_path / "many" / "log.txt").read_text()
    assert distance(tmp_path) <= 1e-5
    assert train.main(args)["tasks"] == one["tasks"]


def test_batches_that_do_not_divide(run, tmp_path):
    """Batches of 7 and 2 images, 9 classes and 3 tasks for 4 processes."""
    uneven = ("DATALOADER.TRAIN_X.BATCH_SIZE", 7, "DATALOADER.TEST.BATCH_SIZE", 5)
    uneven = (*uneven, "DATALOADER.NUM_WORKERS", 1)
    one, many = both(run, tmp_path, "MTCoOp", *words("MTCoOp"), *STEPS, *uneven, count=4)
    assert distance(tmp_path) <= 1e-5
    assert many["tasks"] == one["tasks"]


def test_stored_features_are_computed_by_all_and_once(run, tmp_path):
    drawn = ("INPUT.TRANSFORMS", "('random_resized_crop', 'normalize')")
    store = ("FEATURES.MODE", "full", "FEATURES.DIR", tmp_path / "features")
    both(run, tmp_path, "MTCoOpHard", *STEPS, *drawn, "FEATURES.MODE", "off")
    args = toy_args("MTCoOpHard", *STEPS, *drawn, *store, output=tmp_path / "stored")
    assert in_processes(lambda: train.main(args)) == [0, 0]
    files = list((tmp_path / "features").rglob("*.safetensors"))
    assert len(files) == 2 * (5 + 1)  # a share of each of 5 views, and of the test images
    expected = learned(tmp_path / "one")
    assert (learned(tmp_path / "stored") - expected).norm() / expected.norm() <= 1e-4


def test_a_run_of_two_goes_on_where_one_stopped(run, tmp_path, monkeypatch):
    run("MTCoOp", *words("MTCoOp"), *STEPS, output=tmp_path / "one")
    args = toy_args("MTCoOp", *words("MTCoOp"), *STEPS, output=tmp_path / "many")
    after_epoch = TrainerX.after_epoch

    def stop(self):
        after_epoch(self)
        if self.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(TrainerX, "after_epoch", stop)
        train.main(args)
    assert in_processes(lambda: train.main(args)) == [0, 0]
    assert train.main(args)["run"]["resumed"] is True
    assert distance(tmp_path) <= 1e-5


def test_the_best_epoch_is_read_by_all(run, tmp_path):
    best = ("TEST.FINAL_MODEL", "best_val", *STEPS)
    one, many = both(run, tmp_path, "MTCoOpHard", *best)
    assert many["tasks"] == one["tasks"]


def test_every_process_gets_the_whole_batch(build, tmp_path):
    trainer = build("MTCoOpHard", "DATALOADER.TRAIN_X.BATCH_SIZE", 7)
    items, cfg = trainer.dm.dataset.train_x, trainer.cfg

    def batches():
        loader = build_data_loader(cfg, "RandomSampler", items, 7)
        loader.set_epoch(3)
        return list(loader)

    whole = batches()

    def compare():
        for share, all_of_it in zip(batches(), whole, strict=True):
            for key in ("label", "task", "domain", "index"):
                assert torch.equal(share[key], all_of_it[key])
            assert share["impath"] == all_of_it["impath"]
            assert len(share["img"]) == 3
            gathered = distributed.gather_rows(share["img"], 7)
            assert torch.equal(gathered, all_of_it["img"])

    assert in_processes(compare, 3) == [0, 0, 0]


def test_gathered_rows_have_the_gradient_of_the_sum():
    generator = torch.Generator().manual_seed(0)
    x, w, v = (torch.randn(7, 3, generator=generator) for _ in range(3))
    weight = torch.ones(3, requires_grad=True)
    unused = torch.ones(2, requires_grad=True)

    def loss(rows, parts):
        again = torch.tanh(rows @ w.T)  # computed by every process alike
        return ((again @ v) * rows).sum() / parts + (weight**2).sum() / parts

    expected = torch.autograd.grad(loss(x * weight, 1), weight)[0]

    def compare():
        own = x[distributed.share(7)] * weight
        loss(distributed.gather_rows(own, 7), distributed.world_size()).backward()
        partly = torch.ones(1, requires_grad=True)
        if distributed.is_main():
            partly.grad = torch.ones(1)
        distributed.sum_gradients([weight, unused, partly])
        torch.testing.assert_close(weight.grad, expected, rtol=1e-5, atol=1e-5)
        assert unused.grad is None
        assert partly.grad.item() == 1

    assert in_processes(compare, 3) == [0, 0, 0]


def test_shares_are_all_of_it():
    def check():
        for n in (0, 1, 2, 3, 7, 9, 1191):
            parts = [range(n)[distributed.share(n, i)] for i in range(3)]
            assert [i for part in parts for i in part] == list(range(n))
            assert max(map(len, parts)) == distributed.largest_share(n)
            assert distributed.largest_share(n) - min(map(len, parts)) <= 1
        assert distributed.broadcast(distributed.rank()) == 0
        assert distributed.anywhere(distributed.rank() == 2)
        assert not distributed.anywhere(False)

    assert in_processes(check, 3) == [0, 0, 0]


def test_alone_nothing_is_done(monkeypatch):
    rows = torch.randn(4, 2)
    with distributed.session():
        assert distributed.gather_rows(rows, 4) is rows
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        assert distributed.share(5) == slice(0, 5)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    with distributed.session():
        assert distributed.is_main()


class Unaware(TrainerX):
    """A trainer that knows nothing of other processes."""

    suite = "joint"

    def build_model(self):
        self.register_model("model", nn.Linear(1, 1))


def test_a_trainer_that_does_not_divide_its_work(register_trainer, build):
    register_trainer(Unaware)

    def refused():
        with pytest.raises(UserError, match="Unaware runs in one process, but torchrun started 2"):
            build("Unaware", "INPUT.SIZE", "(32, 32)", "INPUT.INTERPOLATION", "bilinear")

    assert in_processes(refused) == [0, 0]


@pytest.mark.slow
def test_torchrun(tmp_path):
    """As a user starts it."""
    words = ["train.py", "--trainer", "MTCoOp", "--seed", "1", "--backbone", "tiny/random"]
    words += ["--config-file", "configs/trainers/MTCoOp/tiny_ep50.yaml"]
    words += ["--dataset-config-file", "configs/datasets/digits7.yaml"]
    opts = ["DATASET.NUM_SHOTS", "4", "OPTIM.MAX_EPOCH", "5", "FEATURES.MODE", "off"]
    commands = {
        "one": [sys.executable, *words],
        "many": [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *words],
    }
    commands["many"][3:3] = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    for name, command in commands.items():
        subprocess.run(
            [*command, "--output-dir", str(tmp_path / name), *opts],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
        )
    assert distance(tmp_path) <= 1e-5
    assert "epoch [5/5]" in (tmp_path / "many" / "log.txt").read_text()
    assert not list((tmp_path / "many").glob("log.txt-*"))  # one of them writes
