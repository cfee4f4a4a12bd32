"""What every registered method must do, and what single ones promise, on the toy suite."""

import copy
import json
import math
import re
from dataclasses import replace

import pytest
import torch

from clip import load_backbone
from dassl.data import build_data_loader
from dassl.data.datasets import DATASET_REGISTRY
from dassl.data.tasks import TaskSpace
from dassl.engine import TRAINER_REGISTRY, Step
from dassl.utils import UserError, load_checkpoint
from prompting.fitting import Fitting
from results.record import RunRecord
from results.schema import SCHEMA
from tests.conftest import COUNTS, TASKS, VIT_METHODS, backbone_of, toy_class
from tests.reference import prompts as naive
from trainers._base import PromptTrainer, choose_precision
from trainers.coop import CoOp

METHODS = [
    *(
        "CLIPAdapter",
        "CoCoOp",
        "CoOp",
        "CoT",
        "IVLP",
        "KgCoOp",
        "LPPlusPlus",
        "LinearProbe",
        "MTCoOp",
        "MTCoOpHard",
        "MaPLe",
        "PLOT",
    ),
    *("ProGrad", "ProtoNet", "TaskRes", "TipAdapter", "VPT", "ZeroshotCLIP", "ZeroshotCLIP2"),
]
TRAINED = (
    *("CoCoOp", "CoOp", "CoT", "IVLP", "KgCoOp", "MTCoOp", "MTCoOpHard", "MaPLe", "PLOT"),
    *("ProGrad", "VPT"),
)
D = E = 64  # widths of the tiny backbones, and of the image tokens of the one with a ViT
M, U, V = 4, 3, 2  # context tokens: made or learned, of the task, of the class
SIZES = {"MTCOOP.TASK_N_CTX": U, "MTCOOP.CLASS_N_CTX": V}
SIZES |= {"COT.N_CTX": M}
SIZES |= {"COOP.N_CTX": M, "MTCOOP.N_CTX": M, "MTCOOPH.N_CTX": M}
SIZES |= {f"{key}.N_CTX": M for key in ("COCOOP", "KGCOOP", "PLOT", "PROGRAD")}
SIZES |= {"VPT.PROMPT_DEPTH_VISION": 3, "IVLP.PROMPT_DEPTH_VISION": 3}
SIZES |= {"IVLP.PROMPT_DEPTH_TEXT": 2, "MAPLE.PROMPT_DEPTH": 2}
SIZES["PROGRAD.LAMBDA"] = 0.5  # untrained, zero-shot CLIP teaches the opposite of the labels
PARAMETERS = {  # T = 3 tasks, C = 9 classes
    ("CoOp",): 3 * M * D,
    ("CoOp", "COOP.CSC"): 9 * M * D,
    ("CoT",): 3 * (3 * M * D + 3 * (4 * E + 4 + 4 * D + D) + 4 * E + 4 + 4 * 2 + 2),
    ("MTCoOpHard",): M * D,
    ("MTCoOpHard", "MTCOOPH.TSC"): 3 * M * D,
    ("MTCoOpHard", "MTCOOPH.CSC"): 9 * M * D,
    ("MTCoOp",): E * M * D + U * D,
    ("MTCoOp", "MTCOOP.TASK_CSC"): E * M * D + 3 * U * D,
    ("MTCoOp", "MTCOOP.CSC"): 2 * E * M * D + U * D + V * D,
    ("MTCoOp", "MTCOOP.CSC", "MTCOOP.TASK_CSC"): 2 * E * M * D + 3 * U * D + V * D,
    ("MTCoOp", "MTCOOP.CSC", "MTCOOP.CLASS_CSC"): 2 * E * M * D + U * D + 9 * V * D,
    ("MTCoOp", "MTCOOP.TASK_VECTORS"): E * M * D + 3 * E,
    ("CoCoOp",): 3 * (M * D + (E + 1) * E // 16 + (E // 16 + 1) * D),
    ("KgCoOp",): 3 * M * D,
    ("KgCoOp", "KGCOOP.CSC"): 9 * M * D,
    ("PLOT",): 3 * 4 * M * D,
    ("PLOT", "PLOT.CSC"): 9 * 4 * M * D,
    ("PLOT", "PLOT.UNIFORM"): 3 * 4 * M * D,
    ("ProGrad",): 3 * M * D,
    ("ProGrad", "PROGRAD.CSC"): 9 * M * D,
    ("ProGrad", "PROGRAD.CTX_INIT"): 3 * M * D,
    ("VPT",): 3 * 3 * 8 * D,
    ("IVLP",): 3 * (2 + 3) * 2 * D,
    ("MaPLe",): 3 * 2 * (2 * D + D * D + D),
    ("ZeroshotCLIP",): 0,
    ("ZeroshotCLIP2",): 0,
    ("LinearProbe",): 9 * (E + 1),
    ("ProtoNet",): 0,
    ("TipAdapter",): 0,
    ("TipAdapter", "TIP.FINETUNE"): 9 * COUNTS["train_x"] * E,
    ("CLIPAdapter",): 3 * 2 * E * E // 4,
    ("TaskRes",): 9 * E,
    ("LPPlusPlus",): 9 * (E + 2),
}
PUBLISHED_STEPS = {"TaskRes": ("OPTIM.NAME", "adam")}  # methods that SGD at this rate barely moves
VARIANTS = [pytest.param(key, id="-".join(key)) for key in PARAMETERS]
PROTOCOL = {
    *("name", "suite", "tasks", "classes", "shots", "seed", "trainer", "method", "options"),
    *("backbone", "split", "selection", "metric_rule", "steps_rule"),
}
TASK0 = ("DATASET.SUBSAMPLE_TASKS", "task0")
LOSS = re.compile(r"epoch \[(\d+)/\d+\]\[\d+/\d+\].*?loss \S+ \((\S+)\).*lr (\S+)")


def options(*switches):
    """KEY VALUE words: small contexts, and the switches on."""
    pairs = {f"TRAINER.{key}": value for key, value in SIZES.items()}
    pairs |= {f"TRAINER.{key}": "True" for key in switches}
    return [word for pair in pairs.items() for word in pair]


def parts_of(trainer):
    """The trainers of the single tasks, or the one for all."""
    return trainer.task_trainers


@torch.no_grad()
def training_loss(trainer):
    """The loss over all training images at once."""
    total = 0.0
    for part in parts_of(trainer):
        items = part.dm.dataset.train_x
        batch = next(iter(build_data_loader(part.cfg, "SequentialSampler", items, len(items))))
        total += part.compute_loss(part.forward(part.image_features(batch)), batch)["loss"].item()
    return total


def guessing(trainer):
    """The training loss if all classes of a task are given the same chance."""
    spaces = [part.dm.space for part in parts_of(trainer)]
    images = [[size * COUNTS["train_x"] for size in space.sizes] for space in spaces]
    return sum(
        sum(n * math.log(size) for n, size in zip(counts, space.sizes, strict=True)) / sum(counts)
        for counts, space in zip(images, spaces, strict=True)
    )


def learned(trainer):
    return {
        f"{i}.{name}": p
        for i, part in enumerate(parts_of(trainer))
        for name, p in part.model.prompter.named_parameters()
        if p.requires_grad
    }


def test_methods_are_these():
    assert TRAINER_REGISTRY.registered_names() == METHODS
    assert {key[0] for key in PARAMETERS} == set(METHODS)


@pytest.mark.parametrize("variant", VARIANTS)
def test_learns_and_leaves_clip_alone(build, variant):
    clip_model = load_backbone(backbone_of(variant[0]))
    before = {k: v.clone() for k, v in [*clip_model.state_dict().items()]}
    buffers = {k: v.clone() for k, v in clip_model.named_buffers()}
    assert buffers or variant[0] in VIT_METHODS  # the image tower has batch statistics
    steps = ("OPTIM.MAX_EPOCH", 10, "OPTIM.LR", 0.02, *PUBLISHED_STEPS.get(variant[0], ()))
    trainer = build(*variant[:1], *options(*variant[1:]), *steps)
    starts = {name: p.detach().clone() for name, p in learned(trainer).items()}
    loss = training_loss(trainer)
    trainer.train()
    for name, value in {**clip_model.state_dict(), **dict(clip_model.named_buffers())}.items():
        assert torch.equal(value, before.get(name, buffers.get(name))), name
    assert not clip_model.training
    for name, start in starts.items():
        assert not torch.equal(start, learned(trainer)[name]), f"{name} has not moved"
    count = sum(p.numel() for p in learned(trainer).values())
    assert count == PARAMETERS[variant] == trainer.results()["trainable"]["parameters"]
    if starts:  # at least halfway down to the loss of guessing; untrained images tell no more
        chance = guessing(trainer)
        assert training_loss(trainer) - chance < (loss - chance) / 2
    elif parts_of(trainer)[0].steps_rule == "fitted":
        assert training_loss(trainer) < loss
    else:
        assert training_loss(trainer) == loss


@pytest.mark.parametrize("dataset", ["Toy", "ToyGroups"])
@pytest.mark.parametrize("method", METHODS)
def test_results_are_complete(run, tmp_path, method, dataset):
    content = run(method, *options(), dataset=dataset)
    path = tmp_path / "run" / "results.json"
    assert json.loads(path.read_text()) == content
    assert str(tmp_path) not in path.read_text()
    assert content["schema"] == SCHEMA
    assert content["status"] == "complete"
    assert set(content["protocol"]) == PROTOCOL
    assert content["protocol"]["trainer"] == method
    assert content["protocol"]["suite"] == dataset
    assert content["protocol"]["seed"] == 1
    weights = load_backbone(backbone_of(method)).weights_hash
    assert content["hashes"]["weights"] == weights
    assert len(content["hashes"]["data"]) == len(content["hashes"]["experiment"]) == 64
    groups = ["looks", "looks", "patterns"] if dataset == "ToyGroups" else [""] * 3
    for t, found in enumerate(content["tasks"]):
        assert found["id"] == t
        assert (found["name"], found["metric"]) == (TASKS[t].name, TASKS[t].metric)
        assert found["group"] == groups[t]
        assert found["total"] == 3 * len(TASKS[t].classnames)
        # equally many images of each class: both metrics are correct / total
        assert found["value"] == pytest.approx(100 * found["correct"] / found["total"])
    values = [found["value"] for found in content["tasks"]]
    if dataset == "Toy":
        assert content["suite"]["value"] == pytest.approx(sum(values) / 3)
        assert content["suite"]["groups"] == {}
    else:
        assert content["suite"]["value"] is None
        expected = {"looks": sum(values[:2]) / 2, "patterns": values[2]}
        assert content["suite"]["groups"] == pytest.approx(expected)
    cost = content["run"]
    assert cost["device"]
    assert cost["seconds"] > 0
    assert cost["peak_memory"] > 0
    assert set(cost["time_split"]) == {"data", "image", "text", "rest"}
    assert all(seconds >= 0 for seconds in cost["time_split"].values())
    assert 0 < sum(cost["time_split"].values()) <= cost["seconds"]
    assert {"python", "torch", "open_clip_torch"} <= set(cost["versions"])


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        (("CoOp",), "CoOp-CA"),
        (("CoOp", "COOP.CSC"), "CoOp-CS"),
        (("CoT",), "CoT"),
        (("MTCoOpHard",), "CoOp-MT"),
        (("MTCoOpHard", "MTCOOPH.TSC"), "CoOp-MT (per task)"),
        (("MTCoOpHard", "MTCOOPH.CSC"), "CoOp-MT (per class)"),
        (("CoCoOp",), "CoCoOp"),
        (("KgCoOp",), "KgCoOp"),
        (("PLOT",), "PLOT"),
        (("PLOT", "PLOT.UNIFORM"), "PLOT (uniform plan)"),
        (("ProGrad",), "ProGrad"),
        (("ZeroshotCLIP",), "zero-shot"),
        (("ZeroshotCLIP2",), "zero-shot (ensemble)"),
        (("MTCoOp", "MTCOOP.TASK_VECTORS"), "SoftCPT*"),
        (("MTCoOp", "MTCOOP.TASK_VECTORS", "MTCOOP.CSC"), "SoftCPT* (CA)"),
        (("LinearProbe",), "LP-CLIP"),
        (("ProtoNet",), "ProtoNet"),
        (("TipAdapter",), "Tip-Adapter"),
        (("TipAdapter", "TIP.FINETUNE"), "Tip-Adapter-F"),
        (("CLIPAdapter",), "CLIP-Adapter"),
        (("TaskRes",), "TaskRes"),
        (("LPPlusPlus",), "LP++"),
        (("IVLP",), "IVLP"),
        (("MaPLe",), "MaPLe"),
        (("VPT",), "VPT"),
    ],
)
def test_names_in_tables(build, variant, name):
    assert build(variant[0], *options(*variant[1:])).method_name() == name


@pytest.mark.parametrize("t", [0, 1, 2])
def test_a_suite_task_by_task_is_each_task_alone(run, tmp_path, t):
    suite = run("CoOp", *options(), output=tmp_path / "suite")
    choice = ("DATASET.SUBSAMPLE_TASKS", f"task{t}")
    alone = run("CoOp", *options(), *choice, output=tmp_path / "alone")
    assert {**alone["tasks"][0], "id": t} == suite["tasks"][t]
    checkpoints = [
        load_checkpoint(tmp_path / folder / "prompt_learner" / "model.pth.tar-2")["state_dict"]
        for folder in (f"suite/task{t}", "alone")
    ]
    assert torch.equal(checkpoints[0]["prompts.ctx"], checkpoints[1]["prompts.ctx"])


def test_the_words_a_photo_of_a_are_zero_shot(build):
    trainer = build("CoOp", "TRAINER.COOP.CTX_INIT", "a photo of a", *TASK0)
    phrases = [f"a photo of a {name.replace('_', ' ')}." for name in TASKS[0].classnames]
    images, text = torch.randn(4, E), trainer.clip.text_tower
    scores = naive.logits(images, text.encode_text(phrases), trainer.clip.logit_scale)
    torch.testing.assert_close(trainer.forward({"global": images}).logits, scores)


@pytest.fixture
def renamed(toy_folder):
    """Registers NewClasses and NewTasks: the toy suite with other names of classes or tasks."""

    def register(dataset, **changes):
        def init(self, cfg):
            super(cls, self).__init__(cfg)
            tasks = [
                replace(task, **{key: change(task) for key, change in changes.items()})
                for task in self.space.tasks
            ]
            self._space = TaskSpace(tuple(tasks))

        cls = type(dataset, (toy_class(dataset, toy_folder),), {"__init__": init})
        DATASET_REGISTRY.register()(cls)

    register("NewClasses", classnames=lambda task: tuple(f"new {n}" for n in task.classnames))
    register("NewTasks", name=lambda task: f"new {task.name}")
    yield
    for name in ("NewClasses", "NewTasks"):
        DATASET_REGISTRY._classes.pop(name)


@pytest.mark.parametrize(
    ("method", "switches", "passes"),
    [
        *((method, [], True) for method in TRAINED),
        ("CoOp", ["COOP.CSC"], False),
        ("KgCoOp", ["KGCOOP.CSC"], False),
        ("MTCoOp", ["MTCOOP.CLASS_CSC", "MTCOOP.CSC"], False),
        ("MTCoOp", ["MTCOOP.TASK_CSC"], True),  # the tasks are the same
        ("MTCoOp", ["MTCOOP.TASK_VECTORS"], True),
        ("MTCoOpHard", ["MTCOOPH.TSC"], True),
        ("LinearProbe", [], False),
        ("ProtoNet", [], False),
        ("TipAdapter", [], False),
        ("CLIPAdapter", [], True),
        ("TaskRes", [], False),
        ("LPPlusPlus", [], False),
        ("MTCoOpHard", ["MTCOOPH.CSC"], False),
        ("PLOT", ["PLOT.CSC"], False),
        ("ProGrad", ["PROGRAD.CSC"], False),
    ],
)
def test_new_classes(run, renamed, tmp_path, method, switches, passes):
    """Shared contexts go on to other classes; those of classes, which would fit, do not."""
    run(method, *options(*switches), "OPTIM.MAX_EPOCH", 1)
    how = {"flags": ("--eval-only", "--model-dir", str(tmp_path / "run")), "dataset": "NewClasses"}
    if passes:
        assert run(method, *options(*switches), output=tmp_path / "new", **how)["tasks"]
        return
    with pytest.raises(UserError, match="was trained with another set of names"):
        run(method, *options(*switches), output=tmp_path / "new", **how)


@pytest.mark.parametrize(
    ("method", "switches", "passes"),
    [
        ("MTCoOp", [], True),
        ("MTCoOp", ["MTCOOP.TASK_CSC"], False),
        ("MTCoOp", ["MTCOOP.TASK_VECTORS"], False),
        ("MTCoOpHard", [], True),
        ("MTCoOpHard", ["MTCOOPH.TSC"], False),
        ("LinearProbe", [], True),
    ],
)
def test_new_tasks(build, run, renamed, tmp_path, method, switches, passes):
    """What is learned per task does not go on to tasks of other names."""
    run(method, *options(*switches), "OPTIM.MAX_EPOCH", 1)
    trainer = build(method, *options(*switches), dataset="NewTasks", output=tmp_path / "new")
    if passes:
        trainer.load_model(tmp_path / "run")
        return
    with pytest.raises(UserError, match="was trained with another set of names"):
        trainer.load_model(tmp_path / "run")


@pytest.mark.parametrize("method", TRAINED)
def test_a_checkpoint_holds_what_is_learned(build, method):
    for part in parts_of(build(method, *options())):
        prompter = part.model.prompter
        assert set(prompter.state_dict()) == {name for name, _ in prompter.named_parameters()}


def test_zero_shot_is_clip_with_the_templates(build):
    trainer = build("ZeroshotCLIP")
    text = trainer.clip.text_tower
    phrases = [
        task.templates[0].format(name.replace("_", " "))
        for task in TASKS
        for name in task.classnames
    ]
    assert phrases[1] == "a grass green picture."
    images = torch.randn(4, E)
    scores = naive.logits(images, text.encode_text(phrases), trainer.clip.logit_scale)
    torch.testing.assert_close(trainer.forward({"global": images}).logits, scores)
    assert not trainer.optimizers()


def test_ensemble_averages_normalised_features(build):
    trainer = build("ZeroshotCLIP2", "DATASET.SUBSAMPLE_TASKS", "task0")
    text, rows = trainer.clip.text_tower, []
    general = ("itap of a {}.", "a bad photo of the {}.", "a origami {}.")
    general += ("a photo of the large {}.", "a {} in a video game.", "art of the {}.")
    for name in ("red", "grass green", "deep blue"):
        templates = ("a {} picture.", *general, "a photo of the small {}.")
        found = text.encode_text([template.format(name) for template in templates])
        rows.append(sum(row / row.norm() for row in found))
    images = torch.randn(4, E)
    scores = naive.logits(images, rows, trainer.clip.logit_scale)
    torch.testing.assert_close(trainer.forward({"global": images}).logits, scores)


# ---------------------------------------------------------------- what single methods promise


def log_of(folder):
    return (folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("switches", "rates"),
    [((), {18: 0.0, 34: 1.99e-3, 50: 3.1e-5}), (("MTCOOP.CSC",), {50: 1.95e-3})],
)
def test_upstream_steps_bend_the_schedule(run, tmp_path, switches, rates):
    recipe = "configs/_base_/sgd_cosine_ep50.yaml"
    one_step = ("DATASET.SUBSAMPLE_TASKS", "task1", "OPTIM.MAX_EPOCH", 50)
    words = options(*switches, "MTCOOP.UPSTREAM_STEPS")
    content = run("MTCoOp", *words, *one_step, flags=("--config-file", recipe))
    names = 4 if switches else 3
    assert content["protocol"]["steps_rule"].startswith(f"upstream: {names} optimizer steps")
    shown = {int(e): float(lr) for e, _, lr in LOSS.findall(log_of(tmp_path / "run"))}
    assert len(shown) == 50
    assert shown[1] == pytest.approx(1e-5)
    for epoch, rate in rates.items():
        assert shown[epoch] == pytest.approx(rate, rel=2e-2, abs=1e-9)


@pytest.mark.parametrize("switches", [(), ("MTCOOP.CSC",)])
def test_upstream_steps_are_repeated_sgd_steps_on_one_gradient(build, switches):
    words = options(*switches, "MTCOOP.UPSTREAM_STEPS")
    trainer = build("MTCoOp", *words)
    batch = next(iter(trainer.train_loader_x))
    by_hand = copy.deepcopy(trainer.model.prompter)
    weights = [p for p in by_hand.parameters() if p.requires_grad]
    trainer.train_step(batch, Step(0, 0, 2))
    features = trainer.model.encode_image(batch["img"])["global"]
    text = by_hand(trainer.clip.text_tower, features)
    scores = naive.logits(features, text, trainer.clip.logit_scale)
    loss = naive.loss(scores, batch["label"].tolist(), batch["task"].tolist(), [3, 2, 4])
    grads = torch.autograd.grad(loss, weights)
    for weight, grad in zip(weights, grads, strict=True):
        value, speed = weight.detach(), torch.zeros_like(grad)
        for _ in range(4 if switches else 3):
            speed = 0.9 * speed + grad + 5e-4 * value
            value = value - 0.002 * speed
        weight.data = value
    for mine, theirs in zip(trainer.model.prompter.parameters(), weights, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-7)


def test_one_step_per_batch_otherwise(build):
    trainer = build("MTCoOp", *options())
    assert trainer.steps_rule == "one step per batch"
    trainer.train()
    state = trainer.optimizers()[0].state
    assert trainer.schedulers()[0].last_epoch == 2
    assert state


def test_frozen_class_context_stays(build):
    words = (*options("MTCOOP.CSC"), "TRAINER.MTCOOP.FREEZE_CLS_PROMPT", 1)
    trainer = build("MTCoOp", *words)
    prompter = trainer.model.prompter
    start = {name: p.detach().clone() for name, p in prompter.named_parameters()}
    trainer.train()
    moved = {n for n, p in prompter.named_parameters() if not torch.equal(p, start[n])}
    assert moved == {"tasks.ctx", "meta.proj"}
    assert "classes.ctx" in prompter.state_dict()
    assert trainer.results()["trainable"]["parameters"] == 2 * E * M * D + U * D


@pytest.mark.parametrize("switches", [(), ("MTCOOP.CSC", "MTCOOP.CLASS_CSC")])
@pytest.mark.parametrize("kind", ["mlp", "transformer"])
def test_own_meta_networks_train(build, kind, switches):
    steps = ("OPTIM.MAX_EPOCH", 8, "OPTIM.LR", 0.02, "TRAINER.MTCOOP.PG_TYPE", kind)
    trainer = build("MTCoOp", *options(*switches), *steps)
    start = {name: p.detach().clone() for name, p in learned(trainer).items()}
    loss = training_loss(trainer)
    trainer.train()
    chance = guessing(trainer)
    assert training_loss(trainer) - chance < (loss - chance) / 2
    still = [n for n, p in learned(trainer).items() if torch.equal(p, start[n])]
    assert not still


def test_class_sampling_trains(build):
    words = ("TRAINER.MTCOOP.CLS_SAMPLE_RATE", 0.5, "OPTIM.MAX_EPOCH", 8, "OPTIM.LR", 0.02)
    trainer = build("MTCoOp", *options("MTCOOP.CSC"), *words)
    loss = training_loss(trainer)
    trainer.train()
    chance = guessing(trainer)
    assert training_loss(trainer) - chance < (loss - chance) / 2


def test_half_precision_needs_a_gpu(run):
    content = run("CoOp", *options(), "USE_CUDA", "False", "TRAINER.COOP.PREC", "fp16")
    assert content["run"]["precision"] == "fp32"
    assert content["protocol"]["options"]["PREC"] == "fp16"
    assert choose_precision("fp16", "cuda") == "fp16"
    assert choose_precision("amp", "cpu") == choose_precision("fp32", "cuda") == "fp32"


def test_logits_are_not_rounded_under_amp(build):
    trainer = build("CoOp", "DATASET.SUBSAMPLE_TASKS", "task0")
    images = torch.randn(4, E)
    with torch.no_grad():
        infer = trainer.build_inference("test")  # encodes the text once, in full precision
        exact = infer({"global": images})
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(infer({"global": images}), exact)


@pytest.mark.parametrize("method", TRAINED)
def test_a_step_in_half_precision_goes_the_same_way(build, monkeypatch, method):
    """As under PREC amp on a GPU: towers rounded, gradients finite and nearly the same."""
    grads = []
    for enabled in (False, True):
        trainer = build(method, *options(), "DATASET.SUBSAMPLE_TASKS", "task2")
        rounding = torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)
        monkeypatch.setattr(trainer, "autocast", lambda rounding=rounding: rounding)
        trainer.train_step(next(iter(trainer.train_loader_x)), Step(0, 0, 2))
        learned = trainer.model.prompter.parameters()
        grads.append(torch.cat([p.grad.flatten() for p in learned if p.requires_grad]))
    exact, rounded = grads
    assert rounded.isfinite().all()
    assert not torch.equal(exact, rounded)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.9


class Named(CoOp):
    """CoOp with a second loss."""

    def compute_loss(self, output, batch, class_mask=None):
        losses = super().compute_loss(output, batch, class_mask)
        return {**losses, "pull": 0.25 * (self.model.prompter.prompts.ctx**2).mean()}


def test_the_log_shows_named_losses(run, tmp_path, register_trainer):
    register_trainer(Named)
    run("Named", *options(), "DATASET.SUBSAMPLE_TASKS", "task0")
    assert re.search(
        r"\tloss \d\.\d+ \(\d\.\d+\) pull 0\.000\d \(0\.000\d\)\tlr ", log_of(tmp_path / "run")
    )


def test_loss_that_is_no_number_stops_the_run(run, tmp_path):
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf); try a smaller OPTIM.LR"):
        run("MTCoOp", *options(), "OPTIM.LR", 1e30, "OPTIM.MAX_EPOCH", 5)
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    assert content["status"] == "failed"
    assert content["run"]["error"].startswith("FloatingPointError: the loss is")


class Unfinished(PromptTrainer):
    """A method without a prompter."""

    KEY = "COOP"


def test_a_method_must_build_a_prompter(build, register_trainer):
    register_trainer(Unfinished)
    Unfinished.DEFAULTS = CoOp.DEFAULTS
    with pytest.raises(NotImplementedError, match="Unfinished must override build_prompter"):
        build("Unfinished", "DATASET.SUBSAMPLE_TASKS", "task0")


class Fitted(CoOp):
    """A method without SGD: its prompter learns from features at once."""

    def build_prompter(self, options, space, text):
        prompter = super().build_prompter(options, space, text)
        return prompter.requires_grad_(False)

    def build_fitting(self, options):
        return Fitting(fit=self.fit)

    def fit(self):
        features, label, task = self.split_features("train")
        self.seen = len(features["global"]), sorted(label.tolist()), task.unique().tolist()


def test_a_method_may_fit_instead(build, register_trainer):
    register_trainer(Fitted)
    trainer = build("Fitted", "DATASET.SUBSAMPLE_TASKS", "task0")
    trainer.train()
    assert trainer.seen == (12, sorted([0, 1, 2] * 4), [0])  # every training image, once
    assert trainer.evaluator.tasks[0]["total"] == 9


def test_record_of_another_method_does_not_matter(build, run, tmp_path):
    """A method that is added later changes no hash of earlier runs."""
    content = run("CoOp", *options())
    cfg = build("CoOp", *options()).cfg
    assert list(cfg.TRAINER) == ["NAME", "COOP"]
    assert content["hashes"]["config"]
    assert RunRecord(tmp_path, cfg).content["status"] == "running"
