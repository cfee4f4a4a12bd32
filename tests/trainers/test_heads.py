"""Methods on frozen image features: their equations, their choices, their checkpoints."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from dassl.data import DatasetWrapper, TaskSpace
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import UserError, load_checkpoint
from prompting.prompter import ModelOutput
from tests.conftest import TASKS, toy_class
from tests.reference import heads as naive
from tests.reference import prompts as naive_clip
from tests.reference.metrics import per_task_metrics
from trainers.clip_adapter import RATIOS
from trainers.linear_probe import choose_exponent, regression

E = 64
ONE = ("DATASET.SUBSAMPLE_TASKS", "task0")  # three classes
FITTED = {  # the methods that fit or tune, with options that make them do so
    "LinearProbe": (),
    "ProtoNet": (),
    "TipAdapter": ("TRAINER.TIP.BETA_STEPS", 5),
    "TipAdapter-F": ("TRAINER.TIP.BETA_STEPS", 5, "TRAINER.TIP.FINETUNE", "True"),
    "CLIPAdapter": ("TRAINER.CLIP_ADAPTER.SEARCH", "True"),
    "LPPlusPlus": (),
}


def drawn(n, seed=0):
    return torch.randn(n, E, generator=torch.Generator().manual_seed(seed))


def templates(trainer, t=0):
    """Text features (C, e) of the toy task's one template."""
    phrases = [TASKS[t].templates[0].format(n.replace("_", " ")) for n in TASKS[t].classnames]
    return trainer.clip.text_tower.encode_text(phrases).double()


def training(trainer):
    features, label, _ = trainer.split_features("train")
    return features["global"], label


def judged(rows, label, t):
    """The toy task's own metric of logits (B, C)."""
    sizes, metrics = [len(TASKS[t].classnames)], [TASKS[t].metric]
    tasks = [0] * len(rows)
    return per_task_metrics(rows.tolist(), label.tolist(), tasks, sizes, metrics)[0]


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("case", FITTED)
def test_checkpoint_is_the_trained_model(run, tmp_path, case):
    trainer, opts = case.removesuffix("-F"), FITTED[case]
    trained = run(trainer, *opts)
    folder = tmp_path / "run"
    flags = ("--eval-only", "--model-dir", str(folder))
    again = run(trainer, *opts, output=tmp_path / "again", flags=flags)
    assert again["tasks"] == trained["tasks"]
    assert again["trainable"] == trained["trainable"]
    (file,) = (folder / "task1" / "prompt_learner").glob("model.pth.tar-*")
    assert file.name == f"model.pth.tar-{2 if case in ('TipAdapter-F', 'CLIPAdapter') else 0}"
    bound = [] if case == "CLIPAdapter" else list(TASKS[1].classnames)
    assert load_checkpoint(file)["facts"]["set of names"] == bound


@pytest.mark.parametrize("case", FITTED)
def test_record_says_what_validation_chose(build, case):
    chosen = {"LinearProbe": "C", "CLIPAdapter": "RATIO", "LPPlusPlus": "ITERATION"}
    chosen = chosen.get(case, "ALPHA and BETA")
    trainer = build(case.removesuffix("-F"), *FITTED[case])
    if case == "ProtoNet":
        assert trainer.selection == "none"
    else:
        stepped = case in ("TipAdapter-F", "CLIPAdapter")
        model = "last_step" if stepped else "none"
        assert trainer.selection == f"{model}, {chosen} on val"
    stepped = case in ("TipAdapter-F", "CLIPAdapter")
    assert trainer.steps_rule == ("one step per batch" if stepped else "fitted")


@pytest.mark.parametrize("trainer", ["LPPlusPlus", "LinearProbe", "ProtoNet", "TipAdapter"])
def test_other_classes_are_refused(run, build, tmp_path, trainer):
    """Also where there are as many of them."""
    run(trainer, *ONE)
    other = build(trainer, *ONE)
    task = replace(TASKS[0], classnames=("ash", "elm", "oak"))
    other.dm.dataset = other.dm.dataset.with_space(TaskSpace((task,)))
    with pytest.raises(UserError, match=r"another set of names: \['red', .*here \['ash', 'elm'"):
        other.load_model(tmp_path / "run")


def test_an_adapter_goes_to_other_classes(run, build, tmp_path):
    run("CLIPAdapter", *ONE)
    other = build("CLIPAdapter", "DATASET.SUBSAMPLE_TASKS", "task2")
    other.load_model(tmp_path / "run")
    assert other.test() >= 0


class Watched:
    """Counts the test images that are read, and when."""

    def __init__(self, trainer, monkeypatch):
        self.read, tune = [], trainer.fitting.tune or (lambda: None)
        inner = trainer.test_loader
        monkeypatch.setattr(trainer, "test_loader", self)
        watched = replace(trainer.fitting, tune=lambda: (tune(), self.read.append("tuned")))
        monkeypatch.setattr(trainer, "fitting", watched)
        self.inner = inner

    def __iter__(self):
        self.read.append("test")
        return iter(self.inner)


@pytest.mark.parametrize("case", [case for case in FITTED if case != "ProtoNet"])
def test_test_images_are_read_once_all_is_chosen(build, monkeypatch, case):
    trainer = build(case.removesuffix("-F"), *FITTED[case], *ONE)
    watched = Watched(trainer, monkeypatch)
    with pytest.raises(ValueError, match="learns from train and val, not from 'test'"):
        trainer.split_features("test")
    trainer.train()
    assert watched.read == ["tuned", "test"]


def test_best_epoch_is_tuned_and_kept(run, tmp_path):
    opts = ("TEST.FINAL_MODEL", "best_val", *FITTED["TipAdapter-F"], *ONE)
    trained = run("TipAdapter", *opts, "OPTIM.MAX_EPOCH", 3)
    assert trained["protocol"]["selection"] == "best_val, ALPHA and BETA on val"
    flags = ("--eval-only", "--model-dir", str(tmp_path / "run"))
    again = run("TipAdapter", *opts, output=tmp_path / "again", flags=flags)
    assert again["tasks"] == trained["tasks"]


@pytest.fixture
def odd_toys(toy_folder):
    """Registers NoVal, ValIsTest and NoDark (no training image of the class dark_tone)."""

    def change(name, **parts):
        cls = toy_class(name, toy_folder)
        first = cls.__init__

        def init(self, cfg):
            first(self, cfg)
            for part, make in parts.items():
                setattr(self, part, make(self))

        cls.__init__ = init
        DATASET_REGISTRY.register()(cls)

    change("NoVal", _val=lambda data: None)
    change("ValIsTest", _val=lambda data: data.test)
    dark = TASKS[1].classnames[1]
    change("NoDark", _train_x=lambda data: [i for i in data.train_x if i.classname != dark])
    yield
    for name in ("NoVal", "ValIsTest", "NoDark"):
        DATASET_REGISTRY._classes.pop(name)


@pytest.mark.parametrize("case", ["LPPlusPlus", "LinearProbe", "TipAdapter", "CLIPAdapter"])
def test_values_are_not_chosen_on_test_images(build, odd_toys, case):
    with pytest.raises(UserError, match=r"validation images that are also test images"):
        build(case, *FITTED[case], dataset="ValIsTest")
    with pytest.raises(UserError, match=r"NoVal has no val images; .* set the values"):
        build(case, *FITTED[case], dataset="NoVal")


@pytest.mark.parametrize(
    ("trainer", "opts"),
    [
        ("LinearProbe", ("TRAINER.LP.C", 0.5)),
        ("TipAdapter", ("TRAINER.TIP.SEARCH", "False")),
        ("LPPlusPlus", ("TRAINER.LPPLUSPLUS.SEARCH", "False")),
        ("ProtoNet", ()),
    ],
)
@pytest.mark.parametrize("dataset", ["NoVal", "ValIsTest"])
def test_values_that_are_given_need_no_validation(run, odd_toys, trainer, opts, dataset):
    assert run(trainer, *opts, *ONE, dataset=dataset)["protocol"]["selection"] == "none"


@pytest.mark.parametrize("trainer", ["LPPlusPlus", "LinearProbe", "ProtoNet"])
def test_a_class_without_images_is_named(build, odd_toys, trainer):
    broken = build(trainer, dataset="NoDark")
    with pytest.raises(UserError, match="every class, but 'dark_tone' of the task 'light or dark'"):
        broken.train()


def test_a_cache_may_lack_a_class(run, odd_toys):
    assert run("TipAdapter", *FITTED["TipAdapter"], dataset="NoDark")["status"] == "complete"


@pytest.mark.parametrize(
    ("trainer", "opts", "message"),
    [
        ("LinearProbe", ("LP.C", -1), "LP.C .*got -1.0"),
        ("LinearProbe", ("LP.MAX_ITER", 0), "LP.MAX_ITER .*got 0"),
        ("ProtoNet", ("PROTONET.DISTANCE", "cosin"), "takes .*'cosin'; did you mean cosine"),
        ("TipAdapter", ("TIP.BETA_MAX", 0.1), "BETA_MAX takes .* above 0.1; got 0.1"),
        ("TipAdapter", ("TIP.ALPHA_STEPS", 0), "ALPHA_STEPS .*got 0"),
        ("TipAdapter", ("TIP.VIEWS", -1), "TIP.VIEWS .*got -1"),
        ("CLIPAdapter", ("CLIP_ADAPTER.RATIO", 0), "RATIO takes a number above 0 and at most 1"),
        ("CLIPAdapter", ("CLIP_ADAPTER.REDUCTION", 65), "REDUCTION.*64.*got 65"),
    ],
)
def test_refused(build, trainer, opts, message):
    with pytest.raises(UserError, match=message):
        build(trainer, f"TRAINER.{opts[0]}", opts[1])


# ---------------------------------------------------------------- linear probe


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("c", [0.01, 3.0])
def test_regression_is_at_the_minimum(close, classes, c):
    x = drawn(12)[:, :5].double()
    y = torch.arange(12) % classes
    model = regression(x.numpy(), y.numpy(), c, 1000)
    weight, bias = naive.probe(x, y.tolist(), classes, c)
    mine = x @ torch.from_numpy(model.coef_).T + torch.from_numpy(model.intercept_)
    theirs = x @ weight.T + bias
    if classes == 2:
        mine, theirs = mine[:, 0], theirs[:, 1]
    else:  # a constant added to all logits changes nothing
        mine, theirs = (z - z.mean(dim=1, keepdim=True) for z in (mine, theirs))
    close(mine, theirs, 1e-2)  # the solver stops where the gradient is below 1e-4


def test_more_than_the_limit_of_steps_is_no_error():
    x, y = drawn(12).numpy().astype(np.float64), np.arange(12) % 3
    assert regression(x, y, 1e6, 2).n_iter_.max() == 2


def test_regression_on_one_image_per_class_is_silent(recwarn):
    regression(drawn(30).numpy(), np.arange(30), 1.0, 1000)  # 1 shot of 30 classes
    assert not recwarn.list


@pytest.mark.parametrize("t", [0, 1])  # three classes, two classes
def test_probe_scores_with_the_fitted_regression(build, close, t):
    trainer = build("LinearProbe", "TRAINER.LP.C", 0.5, "DATASET.SUBSAMPLE_TASKS", f"task{t}")
    trainer.fit()
    x, y = training(trainer)
    x, y, head = x.double(), y.tolist(), trainer.model.prompter
    found = (head.weight.detach().double(), head.bias.detach().double())
    least = naive.probe_objective(*naive.probe(x, y, len(TASKS[t].classnames), 0.5), x, y, 0.5)
    assert naive.probe_objective(*found, x, y, 0.5).item() == pytest.approx(least.item(), rel=1e-3)
    expected = drawn(6).double() @ found[0].T + found[1]
    close(trainer.forward({"global": drawn(6)}).logits, expected)


def test_the_search_of_c():
    for seed in range(200):
        rng = random.Random(seed)
        values, tried = {}, []

        def quality(exponent, rng=rng, values=values, tried=tried):
            tried.append(exponent)
            return values.setdefault(float(exponent), rng.randrange(5))  # with many ties

        found = choose_exponent(quality)
        first = len(set(map(float, tried)))
        assert found == naive.choose_c(quality)
        assert len(set(map(float, tried))) == first == len(values)  # the same values were tried
        assert first <= 7 + 2 + 7  # the peak's two neighbours, then a middle per halving


def test_c_is_chosen_by_the_metric_of_the_task(build, capsys):
    trainer = build("LinearProbe", "DATASET.SUBSAMPLE_TASKS", "task1")  # mean_acc
    trainer.fit()
    val, label, _ = trainer.split_features("val")
    value = judged(trainer.forward(val).logits, label, 1)
    assert f": {value:.2f}% on 4 validation images" in capsys.readouterr().out


def test_upstream_metrics_are_swapped(run, build):
    content = run("LinearProbe", "TRAINER.LP.UPSTREAM_METRICS", "True", "TRAINER.LP.C", 1)
    own = ["mean_acc" if t.metric == "overall_acc" else "overall_acc" for t in TASKS]
    assert [task["metric"] for task in content["tasks"]] == own
    assert content["protocol"]["method"] == "LP-CLIP (upstream's metrics)"
    with pytest.raises(UserError, match=r"UPSTREAM_METRICS.*TEST.METRIC per_task"):
        build("LinearProbe", "TRAINER.LP.UPSTREAM_METRICS", "True", "TEST.METRIC", "overall_acc")


# ---------------------------------------------------------------- prototypes


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_prototypes(build, close, distance):
    trainer = build("ProtoNet", "TRAINER.PROTONET.DISTANCE", distance, *ONE)
    trainer.fit()
    x, y = training(trainer)
    means = naive.prototypes(x.double(), y.tolist(), 3)
    images = drawn(6)
    expected = naive.nearest(images.double(), means)
    if distance == "cosine":
        expected = naive_clip.logits(images.double(), means, trainer.clip.logit_scale.double())
    close(trainer.forward({"global": images}).logits, expected)


def test_of_one_image_per_class_both_distances_rank_alike(build):
    ranks = []
    for distance in ("euclidean", "cosine"):
        trainer = build("ProtoNet", "TRAINER.PROTONET.DISTANCE", distance, *ONE)
        trainer.model.prompter.set_means(drawn(3, 1), torch.tensor([1, 2, 0]))
        ranks.append(trainer.forward({"global": drawn(50)}).logits.argsort(dim=1))
    assert torch.equal(*ranks)


# ---------------------------------------------------------------- Tip-Adapter


def test_tip_values_and_gradients(build, close):
    trainer = build("TipAdapter", "TRAINER.TIP.FINETUNE", "True", *ONE)
    trainer.fit()
    cache, images = trainer.model.prompter, drawn(4)
    cache.alpha.fill_(2.5), cache.beta.fill_(3.0)
    x, y = training(trainer)  # the toy images are not augmented: ten views are alike
    close(cache.keys, torch.stack([naive.unit(v) for v in x.double()]))
    keys = cache.keys.detach().double().requires_grad_()
    scale = trainer.clip.logit_scale.double()
    expected = naive.tip(images.double(), templates(trainer), keys, y.tolist(), 2.5, 3.0, scale)
    logits = trainer.forward({"global": images}).logits
    close(logits, expected)
    batch = {"label": torch.tensor([0, 2, 1, 1]), "task": torch.zeros(4, dtype=torch.long)}
    loss = trainer.compute_loss(ModelOutput(logits), batch)["loss"]
    wanted = naive_clip.loss(expected, batch["label"].tolist(), [0] * 4, [3])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    close(torch.autograd.grad(loss, cache.keys)[0], torch.autograd.grad(wanted, keys)[0])


def test_a_cache_of_no_weight_is_zero_shot(build):
    tip = build("TipAdapter", "TRAINER.TIP.ALPHA", 0, "TRAINER.TIP.SEARCH", "False", *ONE)
    tip.fit()
    images = {"global": drawn(20)}
    expected = build("ZeroshotCLIP", *ONE).forward(images).logits
    assert torch.equal(tip.forward(images).logits, expected)


@pytest.mark.parametrize("t", [0, 1])  # overall_acc, mean_acc
def test_tip_search(build, t):
    sizes = ("ALPHA_STEPS", 4, "BETA_STEPS", 6, "ALPHA_MAX", 5.0, "BETA_MAX", 9.0)
    words = [w if i % 2 else f"TRAINER.TIP.{w}" for i, w in enumerate(sizes)]
    trainer = build("TipAdapter", *words, "DATASET.SUBSAMPLE_TASKS", f"task{t}")
    cache, images = trainer.model.prompter, drawn(30)
    with torch.no_grad():  # text and keys of their own, and labels that one pair gets right
        cache.keys.copy_(torch.nn.functional.normalize(drawn(len(cache.keys), 1), dim=-1))
        near = drawn(1, 3) + 0.15 * drawn(len(cache.features), 2)  # so that the votes count
        cache.features.copy_(torch.nn.functional.normalize(near, dim=-1))
        cache.label.copy_(torch.arange(len(cache.label)) % len(cache.features))
    keys, text = cache.keys.double(), cache.features.double()
    scale = trainer.clip.logit_scale.double()

    def rows(alpha, beta):
        return naive.tip(images.double(), text, keys, cache.label.tolist(), alpha, beta, scale)

    label = rows(2.55, 3.067).argmax(dim=1)
    tried = []

    def metric(alpha, beta):
        tried.append(judged(rows(alpha, beta), label, t))
        return tried[-1]

    best, chosen = naive.tip_search(metric, (5.0, 9.0), (4, 6))
    assert len(tried) == 24 and len(set(tried)) > 3
    trainer.split_features = lambda split: ({"global": images}, label, None)
    trainer.tune()
    assert (cache.alpha.item(), cache.beta.item()) == pytest.approx(chosen)
    assert judged(trainer.forward({"global": images}).logits, label, t) == pytest.approx(best)


def test_training_moves_the_keys_and_no_label(build):
    opts = ("TRAINER.TIP.SEARCH", "False", "TRAINER.TIP.FINETUNE", "True", "OPTIM.LR", 0.1)
    trainer = build("TipAdapter", *opts, *ONE)
    trainer.fit()
    cache = trainer.model.prompter
    start, label = cache.keys.detach().clone(), cache.label.clone()
    trainer.train()
    assert not torch.equal(cache.keys, start)
    assert torch.equal(cache.label, label)


@pytest.mark.parametrize("mode", ["off", "full"])
def test_views_are_averaged(build, close, tmp_path, mode):
    store = ("FEATURES.MODE", mode, "FEATURES.DIR", str(tmp_path / "features"))
    drawn_crops = ("INPUT.TRANSFORMS", "('random_resized_crop', 'random_flip', 'normalize')")
    trainer = build("TipAdapter", *store, *drawn_crops, *ONE)
    views = DatasetWrapper(trainer.cfg, trainer.dataset.train_x, is_train=True)
    total = 0
    for epoch in range(3):
        views.set_epoch(epoch)
        images = torch.stack([views[i]["img"] for i in range(len(views))])
        total = total + trainer.model.encode_image(images)["global"].double()
    found, label, _ = trainer.split_features("train", views=3)
    close(found["global"], total / 3)
    assert label.tolist() == [item.label for item in trainer.dataset.train_x]
    plain, _, _ = trainer.split_features("train")
    assert not torch.allclose(plain["global"], found["global"], rtol=1e-2)


# ---------------------------------------------------------------- CLIP-Adapter


def test_adapter_values_and_gradients(build, close):
    trainer = build("CLIPAdapter", "TRAINER.CLIP_ADAPTER.RATIO", 0.7, *ONE)
    weights = [p for p in trainer.model.prompter.parameters() if p.requires_grad]
    assert [tuple(w.shape) for w in weights] == [(16, E), (E, 16)]
    leaves = [w.detach().double().requires_grad_() for w in weights]
    images = drawn(4)
    adapted = naive.adapt(images.double(), *leaves, 0.7)
    expected = naive_clip.logits(adapted, templates(trainer), trainer.clip.logit_scale.double())
    logits = trainer.forward({"global": images}).logits
    close(logits, expected)
    batch = {"label": torch.tensor([0, 2, 1, 1]), "task": torch.zeros(4, dtype=torch.long)}
    loss = trainer.compute_loss(ModelOutput(logits), batch)["loss"]
    wanted = naive_clip.loss(expected, batch["label"].tolist(), [0] * 4, [3])
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    theirs = torch.autograd.grad(wanted, leaves)
    for mine, other in zip(torch.autograd.grad(loss, weights), theirs, strict=True):
        close(mine, other)


def test_an_adapter_that_adds_nothing_is_zero_shot(build):
    trainer = build("CLIPAdapter", *ONE)
    images = {"global": drawn(20)}
    expected = build("ZeroshotCLIP", *ONE).forward(images).logits
    assert not torch.allclose(trainer.forward(images).logits, expected)
    with torch.no_grad():
        trainer.model.prompter.adapter[2].weight.zero_()
    torch.testing.assert_close(trainer.forward(images).logits, expected)


def test_ratio_is_chosen_on_validation_images(build):
    trainer = build("CLIPAdapter", "TRAINER.CLIP_ADAPTER.SEARCH", "True", *ONE)
    prompter, images = trainer.model.prompter, drawn(40)
    with torch.no_grad():  # text and an adapter so strong that the ratios differ
        prompter.adapter[2].weight.copy_(drawn(E)[:, :16])
        prompter.features.copy_(drawn(3, 2))
    weights = [p.detach().double() for p in prompter.parameters()]
    text, scale = drawn(3, 2).double(), trainer.clip.logit_scale.double()
    rows = {
        ratio: naive_clip.logits(naive.adapt(images.double(), *weights, ratio), text, scale)
        for ratio in RATIOS
    }
    label = rows[0.6].argmax(dim=1)
    trainer.split_features = lambda split: ({"global": images}, label, None)
    trainer.tune()
    found = [judged(rows[ratio], label, 0) for ratio in RATIOS]
    assert len(set(found)) > 5
    assert prompter.ratio.item() == pytest.approx(RATIOS[found.index(100.0)])
