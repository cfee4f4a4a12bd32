"""PromptSRC against its equations, and where it is IVLP."""

import pytest
import torch

from clip import load_backbone
from dassl.utils import load_checkpoint
from prompting.anchors import imagenet_templates
from prompting.averaging import GaussianAverage
from tests.conftest import TASKS
from tests.reference import deep, promptsrc
from tests.reference import prompts as naive
from tests.trainers._compare import agree, naive_leaf, wide

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
DEPTHS = {"PROMPT_DEPTH_VISION": 3, "PROMPT_DEPTH_TEXT": 2}
SHORT = {"NUM_TEMPLATES": 3, "GPA_MEAN": 2, "GPA_STD": 1.5}
DRAWN = ("INPUT.TRANSFORMS", "('random_resized_crop', 'normalize')")
NAMES = TASKS[2].classnames


def words(method="PromptSRC", **options):
    options = {**DEPTHS, **(SHORT if method == "PromptSRC" else {}), **options}
    return [w for k, v in options.items() for w in (f"TRAINER.{method.upper()}.{k}", v)]


def final(folder, epoch=4):
    path = folder / "prompt_learner" / f"model.pth.tar-{epoch}"
    return load_checkpoint(path)["state_dict"]


def test_equations(build, token_ids, close):
    trainer = build("PromptSRC", *ONE, *words(N_CTX_TEXT=2, N_CTX_VISION=2))
    prompter = trainer.model.prompter
    for parameter in prompter.parameters():
        wide(parameter)
    leaves = {name: naive_leaf(p) for name, p in prompter.named_parameters()}
    weights = {key: value.double() for key, value in trainer.clip.state_dict().items()}
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = {"label": torch.tensor([0, 3, 2]), "task": torch.zeros(3, dtype=torch.long)}
    ids = token_ids(NAMES)
    of_a = load_backbone("tiny/random").text_tower.tokenizer.encode("of a")
    text = deep.text_features(
        ids,
        leaves["contexts.ctx"],
        list(leaves["contexts.deep"]),
        weights["token_embedding.weight"][of_a],
        weights,
        heads=1,
    )
    image = deep.image_features(pixels.double(), list(leaves["tokens"]), weights, heads=2)
    image0 = deep.image_features(pixels.double(), [], weights, heads=2)
    tower, templates = trainer.clip.text_tower, imagenet_templates()[:3]
    assert templates[0] == "a bad photo of a {}."
    rows = [[t.format(name.replace("_", " ")) for t in templates] for name in NAMES]
    text0 = torch.stack([tower.encode_text(row).double().mean(0) for row in rows])
    scores = naive.logits(image, text, weights["logit_scale"])
    anchors = promptsrc.losses(image, text, image0, text0, weights["logit_scale"])
    wanted = {
        "loss": naive.loss(scores, labels["label"].tolist(), [0] * 3, [4]),
        "text": 25 * anchors["text"],
        "image": 10 * anchors["image"],
        "logits": anchors["logits"],
    }
    agree(trainer, {"img": pixels, **labels}, scores, wanted, list(leaves.values()), close)


def test_without_anchors_and_average_it_is_ivlp(run, tmp_path):
    off = dict.fromkeys(("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT", "LOGITS_LOSS_WEIGHT"), 0)
    same = {"N_CTX_TEXT": 4, "N_CTX_VISION": 4}
    epochs = ("OPTIM.MAX_EPOCH", 4)
    run("PromptSRC", *ONE, *words(**off, GPA_STD=0), *epochs, output=tmp_path / "src")
    run("IVLP", *ONE, *words("IVLP", **same), *epochs, output=tmp_path / "ivlp")
    found, expected = final(tmp_path / "src"), final(tmp_path / "ivlp")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_the_average_over_the_epochs(run, tmp_path):
    """Of the weights that a run without an average has after each epoch."""
    epochs = ("OPTIM.MAX_EPOCH", 4, "OPTIM.LR", 0.02)
    each = ("TRAIN.CHECKPOINT_FREQ", 1)
    run("PromptSRC", *ONE, *words(GPA_STD=0), *epochs, *each, output=tmp_path / "plain")
    states = [final(tmp_path / "plain", epoch) for epoch in (1, 2, 3, 4)]
    finals = []
    for mean in (2, 4):
        run("PromptSRC", *ONE, *words(GPA_MEAN=mean), *epochs, output=tmp_path / str(mean))
        finals.append(final(tmp_path / str(mean)))
        for name, expected in promptsrc.average(states, mean, 1.5).items():
            torch.testing.assert_close(finals[-1][name].double(), expected, rtol=1e-5, atol=1e-6)
    assert not any(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


def test_the_average_of_a_resumed_training_is_on_the_device_of_the_weights():
    """A state that was read from a file is on the CPU."""
    average = GaussianAverage(3, mean=2, std=1)
    average.state = {"weight": torch.ones(2, 2)}
    average.update(torch.nn.Linear(2, 2, bias=False, device="meta"), epoch=1)
    assert average.state["weight"].device.type == "meta"


def test_a_mean_far_beyond_the_epochs_takes_the_last(run, tmp_path):
    """Every weight of the Gaussian would be rounded to zero."""
    run("PromptSRC", *ONE, *words(GPA_MEAN=500, GPA_STD=1), output=tmp_path / "a")
    run("PromptSRC", *ONE, *words(GPA_STD=0), output=tmp_path / "b")
    for name, value in final(tmp_path / "b", 2).items():
        torch.testing.assert_close(final(tmp_path / "a", 2)[name], value)


@pytest.mark.parametrize("views", [0, 2])
def test_stored_features_of_the_teacher(run, tmp_path, views):
    """Those of each augmented view; the images themselves are read as well."""
    store = ("FEATURES.DIR", tmp_path / "store", "FEATURES.VIEWS", views)
    epochs = ("OPTIM.MAX_EPOCH", 4)
    for mode in ("off", "full"):
        mine = ("FEATURES.MODE", mode, *store)
        run("PromptSRC", *ONE, *words(), *DRAWN, *epochs, *mine, output=tmp_path / mode)
    files = list((tmp_path / "store").rglob("*.safetensors"))
    assert len(files) == (views or 4)  # none of test images, whose tower learns
    if not views:
        for name, value in final(tmp_path / "off").items():
            torch.testing.assert_close(final(tmp_path / "full")[name], value, rtol=1e-4, atol=1e-6)


def test_the_teacher_sees_the_same_view(build, tmp_path):
    store = ("FEATURES.MODE", "full", "FEATURES.DIR", tmp_path / "store", "FEATURES.VIEWS", 2)
    trainer = build("PromptSRC", *ONE, *words(), *DRAWN, *store)
    views = []
    for epoch in (0, 1, 3):
        trainer.train_loader_x.set_epoch(epoch)
        for batch in trainer.train_loader_x:
            torch.testing.assert_close(trainer.clip.encode_image(batch["img"]), batch["teacher"])
            views.append(batch["img"].sum().item())
    assert len(set(views)) == len(views)  # batches of epochs 1 and 3 differ in their images
