"""Methods on pairs of images and texts: logits, loss and gradients, and whole runs."""

import json
import random
import re

import pytest
import torch

import train
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, Step
from dassl.utils import UserError, load_checkpoint
from datasets._core.pairs import CaptionedImage
from datasets.digit_captions import DigitCaptions
from image_text.pairs import PairSpace, PairTask
from prompting.prompter import ModelOutput
from tests._processes import in_processes
from tests.conftest import TASKS, toy_args
from tests.reference import cot, retrieval
from tests.reference import prompts as naive
from tests.trainers._chains import chains_of, widen
from tests.trainers._compare import naive_leaf, wide
from tests.trainers._held_out import values_of

PAIRED = [name for name in TRAINER_REGISTRY.registered_names() if TRAINER_REGISTRY.get(name).pairs]
TEXTS = [
    f"{name} in {t}, number {i}"
    for t, task in enumerate(TASKS)
    for name in task.classnames
    for i in range(2)
]


def pair_class(folder, texts=TEXTS):
    """Nine training images with a caption, and nine test images with one or two."""

    def init(self, cfg):
        learned, test, image, chosen = [], [], [], []
        names = [(t, y) for t, task in enumerate(TASKS) for y in range(len(task.classnames))]
        for number, (t, label) in enumerate(names):
            learned.append(Datum(str(folder / f"{t}_{label}_0.png"), number))
            test.append(Datum(str(folder / f"{t}_{label}_8.png"), len(names) + number))
            chosen.append(texts[2 * number])
            image.append(number)
        for number, _ in enumerate(names):
            for text in texts[2 * number : 2 * number + 1 + number % 2]:
                chosen.append(text)
                image.append(len(names) + number)
        part = (0,) * len(names) + (2,) * len(names)
        space = PairSpace((PairTask("toys", tuple(chosen), tuple(image), part),))
        DatasetBase.__init__(self, train_x=learned, test=test, space=space, split="toy")

    return type("ToyPairs", (DatasetBase,), {"__init__": init, "__doc__": "Captioned colours."})


@pytest.fixture
def pairs(toy):
    DATASET_REGISTRY.register(force=True)(pair_class(toy))
    yield
    DATASET_REGISTRY._classes.pop("ToyPairs")


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    label = torch.tensor([4, 0, 7])
    return {"feat": torch.randn(3, 64, generator=generator), "label": label, "task": label * 0}


def check(trainer, batch, text, leaves, close):
    """Loss and gradients; ``text`` holds the features (B, e) or (B, B, e) of the batch's texts."""
    class_mask = trainer.choose_classes(batch, Step(0, 0, 2))
    assert class_mask.nonzero()[:, 0].tolist() == sorted(batch["label"].tolist())
    logits = trainer.forward({"global": batch["feat"]}, class_mask).logits
    loss = trainer.compute_loss(ModelOutput(logits), batch, class_mask)["loss"]
    images, scale = batch["feat"].double(), trainer.clip.logit_scale.double()
    score = naive.logits if text.dim() == 2 else cot.logits
    scores = score(images, text, scale)
    close(logits[:, batch["label"]], scores)
    wanted = retrieval.contrast(scores)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    own = dict(trainer.model.prompter.named_parameters())
    found = torch.autograd.grad(loss, list(own.values()))
    expected = torch.autograd.grad(wanted, [leaves[name] for name in own])
    for mine, theirs in zip(found, expected, strict=True):
        close(mine, theirs, 3e-5)


def test_contrast_of_one_context(build, pairs, batch, naive_model, token_ids, close):
    trainer = build("CoOp", "TRAINER.COOP.N_CTX", 3, dataset="ToyPairs")
    wide(trainer.model.prompter.prompts.ctx)
    leaf = naive_leaf(trainer.model.prompter.prompts.ctx)
    texts = [TEXTS[2 * i] for i in batch["label"].tolist()]
    text = naive.features(token_ids(texts, 3), [leaf] * 3, "end", **naive_model)
    check(trainer, batch, text, {"prompts.ctx": leaf}, close)


def test_contrast_of_a_chain(build, pairs, batch, naive_model, token_ids, close):
    options = ("TRAINER.COT.N_CTX", 2, "TRAINER.COT.CHAIN_LENGTH", 2, "TRAINER.COT.CHUNK", 2)
    trainer = build("CoT", *options, dataset="ToyPairs")
    leaves = widen(trainer)
    chains = chains_of(batch["feat"].double(), leaves, trainer.cfg.TRAINER.COT)
    texts = [TEXTS[2 * i] for i in batch["label"].tolist()]
    last = [chain[-1] for chain in chains]
    text = cot.text_features(last, token_ids(texts, 2), "end", naive_model)
    check(trainer, batch, text, leaves, close)


@pytest.mark.parametrize("method", PAIRED)
def test_whole_runs(run, pairs, tmp_path, method):
    content = run(method, dataset="ToyPairs")
    assert [task["name"] for task in content["tasks"]] == [
        f"{direction} R@{k}" for direction in ("image to text", "text to image") for k in (1, 5, 10)
    ]
    assert [task["total"] for task in content["tasks"]] == [9] * 3 + [13] * 3
    values = [task["value"] for task in content["tasks"]]
    assert content["suite"]["value"] == pytest.approx(sum(values) / 6)
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == content
    if not method.startswith("Zeroshot"):
        flags = ("--eval-only", "--model-dir", str(tmp_path / "run"), "--load-epoch", "2")
        again = run(method, dataset="ToyPairs", output=tmp_path / "again", flags=flags)
        assert again["tasks"] == content["tasks"]


def test_recalls_of_a_run_are_those_of_its_logits(build, pairs):
    trainer = build("CoT", dataset="ToyPairs")
    value = trainer.test()
    space = trainer.dm.space
    logits = torch.cat(
        [trainer.model_inference(trainer.parse_batch_test(b)[0]) for b in trainer.test_loader]
    )
    columns = (space.image >= 9).nonzero()[:, 0]
    own = (space.image[columns] - 9).tolist()
    found = [retrieval.recalls(logits[:, columns].tolist(), own, k) for k in (1, 5, 10)]
    assert value == pytest.approx(sum(sum(pair) for pair in found) / 6)


@pytest.mark.parametrize("method", PAIRED)
def test_long_captions_are_cut_and_counted(build, toy, capsys, method):
    texts = list(TEXTS)
    texts[0] = "red " * 90 + "end"
    DATASET_REGISTRY.register(force=True)(pair_class(toy, texts))
    trainer = build(method, dataset="ToyPairs")
    out = capsys.readouterr().out
    assert re.search(r"2 of 22 texts were too long for the text tower and are cut", out)
    assert trainer.forward({"global": torch.randn(2, 64)}).logits.isfinite().all()
    DATASET_REGISTRY._classes.pop("ToyPairs")


def test_other_methods_are_refused(build, pairs):
    others = f"ToyPairs .*pairs of images and texts.*{', '.join(PAIRED)}$"
    with pytest.raises(UserError, match=f"MTCoOp .*{others}"):
        build("MTCoOp", dataset="ToyPairs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("TRAINER.COT.BATCH_CONTRAST", 0.5), "BATCH_CONTRAST.*0 for pairs of images and texts"),
        (("TRAINER.COT.GENERATOR", "rule"), "GENERATOR rule.*pairs of images and texts"),
    ],
)
def test_options_that_mean_nothing_here(build, pairs, options, message):
    with pytest.raises(UserError, match=message):
        build("CoT", *options, dataset="ToyPairs")


def test_contexts_per_caption_are_refused(build, pairs):
    with pytest.raises(UserError, match="a context per text"):
        build("CoOp", "TRAINER.COOP.CSC", "True", dataset="ToyPairs")


class Shuffled(DigitCaptions):
    """DigitCaptions whose training captions belong to other images."""

    def read(self, cfg):
        root, parts = super().read(cfg)
        pairs = parts["train"]
        captions = [item.captions for item in pairs]
        random.Random(0).shuffle(captions)
        parts["train"] = [
            CaptionedImage(item.impath, caption)
            for item, caption in zip(pairs, captions, strict=True)
        ]
        return root, parts


@pytest.fixture
def shuffled():
    DATASET_REGISTRY.register()(Shuffled)
    yield "Shuffled"
    DATASET_REGISTRY._classes.pop("Shuffled")


@pytest.mark.slow
@pytest.mark.parametrize("method", [name for name in PAIRED if name != "ZeroshotCLIP"])
def test_learned_pairs_beat_zero_shot_and_shuffled_ones_do_not(tmp_path, shuffled, method):
    """By at least 5 points on held-out digits, from true captions only; CoCoOp by 4.

    The tiny CLIP differs from processor to processor, as its pre-training rounds differently. On
    one, CoCoOp with seeds 1, 2, 3 was 4.8, 5.2 and 3.8 points above zero-shot, 4.6 in the mean.
    """
    how = {"epochs": 20} if method == "CoT" else {}
    data = "digit_captions", "DigitCaptions", shuffled
    zero_shot, learned, misled = values_of(tmp_path, method, f"{method}/tiny_pairs", *data, **how)
    assert learned >= zero_shot + (4 if method == "CoCoOp" else 5)
    assert misled < zero_shot


def test_two_processes_learn_what_one_does(run, pairs, tmp_path):
    opts = ("OPTIM.MAX_EPOCH", 10, "DATALOADER.TRAIN_X.BATCH_SIZE", 4)
    one = run("CoOp", *opts, dataset="ToyPairs", output=tmp_path / "one")
    args = toy_args("CoOp", *opts, dataset="ToyPairs", output=tmp_path / "two")
    assert in_processes(lambda: train.main(args)) == [0, 0]
    assert train.main(args)["tasks"] == one["tasks"]
    paths = [next((tmp_path / f).rglob("model.pth.tar-10")) for f in ("one", "two")]
    expected, found = (load_checkpoint(path)["state_dict"]["prompts.ctx"] for path in paths)
    assert (found - expected).norm() / expected.norm() <= 1e-5
