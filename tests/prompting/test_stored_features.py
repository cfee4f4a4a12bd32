"""Stored image features: modes, views, outputs, limits of the store."""

import pytest
import torch

from clip import CLIP
from dassl.utils import UserError, load_checkpoint
from prompting.prompter import Prompter
from tests.prompting._features import features_of, files, forget, relative
from trainers._base import PromptTrainer

DRAWN = ("INPUT.TRANSFORMS", "('random_resized_crop', 'random_flip', 'normalize')")


def ctx_of(folder):
    return load_checkpoint(folder / "prompt_learner" / "model.pth.tar-2")["state_dict"][
        "prompts.ctx"
    ]


@pytest.mark.parametrize("transforms", [(), DRAWN])
def test_modes_agree(run, tmp_path, store, transforms):
    found, weights = {}, {}
    for mode in ("off", "test", "full", "full again"):
        forget()
        output = tmp_path / mode
        choice = ("FEATURES.MODE", mode.split()[0])
        found[mode] = run("MTCoOpHard", *store, *choice, *transforms, output=output)
        weights[mode] = ctx_of(output)
    for mode in ("test", "full", "full again"):
        assert found[mode]["tasks"] == found["off"]["tasks"]
        assert found[mode]["hashes"] == found["off"]["hashes"]
        distance = (weights[mode] - weights["off"]).norm() / weights["off"].norm()
        assert distance <= 1e-4
    assert torch.equal(weights["full again"], weights["full"])


def test_a_pass_is_stored_once(run, tmp_path, store):
    full = (*store, "FEATURES.MODE", "full")
    run("MTCoOpHard", *full, output=tmp_path / "a")
    before = [(path, path.stat().st_mtime_ns) for path in files(tmp_path)]
    assert len(before) == 2  # training images, which are not augmented here, and test images
    forget()
    run("MTCoOpHard", *full, output=tmp_path / "b")
    run("CoOp", *full, output=tmp_path / "c")
    assert [(path, path.stat().st_mtime_ns) for path in files(tmp_path)] == before


def test_every_epoch_has_its_views(run, tmp_path, store):
    full = (*store, *DRAWN, "FEATURES.MODE", "full", "OPTIM.MAX_EPOCH", 4)
    run("MTCoOpHard", *full, output=tmp_path / "a")
    assert len(files(tmp_path)) == 4 + 1


def test_views_are_used_in_turn(run, tmp_path, store):
    full = (*store, *DRAWN, "FEATURES.MODE", "full", "FEATURES.VIEWS", 2, "OPTIM.MAX_EPOCH", 5)
    run("MTCoOpHard", *full, output=tmp_path / "a")
    assert len(files(tmp_path)) == 2 + 1


def test_computing_features_draws_no_random_number(build, store):
    trainer = build("MTCoOpHard", *store, "FEATURES.MODE", "full")
    before = torch.get_rng_state()
    batch = next(iter(trainer.train_loader_x))
    assert set(batch) == {"feat", "label", "task", "domain", "index", "impath"}
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_are_those_of_the_images(build, store):
    drawn = {}
    for mode in ("off", "full"):
        trainer = build("MTCoOpHard", *store, *DRAWN, "FEATURES.MODE", mode)
        drawn[mode] = []
        for epoch in (0, 3):
            trainer.train_loader_x.set_epoch(epoch)
            for batch in trainer.train_loader_x:
                feat = trainer.image_features(batch)["global"]
                drawn[mode].append((batch["impath"], batch["label"], batch["task"], feat))
    assert len(drawn["full"]) == len(drawn["off"]) == 2 * (36 // 8)
    for mine, theirs in zip(drawn["full"], drawn["off"], strict=True):
        assert mine[0] == theirs[0]
        assert torch.equal(mine[1], theirs[1])
        assert torch.equal(mine[2], theirs[2])
        torch.testing.assert_close(mine[3], theirs[3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("damage", ["cut", "emptied", "replaced"])
def test_a_broken_file_is_passed_over(run, tmp_path, store, damage, capsys):
    full = (*store, "FEATURES.MODE", "full")
    expected = run("MTCoOpHard", *full, output=tmp_path / "a")
    for path in files(tmp_path):
        content = path.read_bytes()
        broken = {"cut": content[:-100], "emptied": b"", "replaced": b"no tensors" * 50}
        path.write_bytes(broken[damage])
    forget()
    found = run("MTCoOpHard", *full, output=tmp_path / "b")
    assert found["tasks"] == expected["tasks"]
    assert "ignoring the unreadable feature file" in (tmp_path / "b" / "log.txt").read_text()


def test_another_backbone_or_transform_is_another_store(build, store, tmp_path):
    for transforms in ("('normalize',)", "()"):
        options = (*store, "FEATURES.MODE", "test", "INPUT.TRANSFORMS", transforms)
        next(iter(build("MTCoOpHard", *options).test_loader))
    assert len({path.parent for path in files(tmp_path)}) == 2


def test_unknown_mode(build):
    with pytest.raises(UserError, match=r"FEATURES.MODE takes .*; got 'all'"):
        build("MTCoOpHard", "FEATURES.MODE", "all")


class Free(Prompter):
    """A learned vector per class."""

    def __init__(self, classes, width):
        super().__init__()
        self.weight = torch.nn.Parameter(0.1 * torch.randn(classes, width))

    def forward(self, text, image_features, class_mask=None):
        return self.weight


class Patches(PromptTrainer):
    """A method that reads two outputs of the image tower."""

    KEY = "PATCHES"
    DEFAULTS = dict(PREC="fp32")
    image_outputs = frozenset({"global", "local"})
    suite = "joint"

    def build_prompter(self, options, space, text):
        return Free(space.num_classes, text.out_dim)

    def forward(self, features, class_mask=None, text_features=None):
        both = features["global"].float() + features["local"].float().mean(dim=1)  # (B, e)
        return self.model.forward_features({"global": both}, class_mask)


@pytest.fixture
def patches(register_trainer, monkeypatch):
    """Registers a method that reads local outputs, and gives the tower some."""
    whole = CLIP.encode_outputs

    def with_local(self, images, outputs=frozenset({"global"})):
        found = whole(self, images, frozenset({"global"}))
        if "local" in outputs:
            weights = torch.linspace(-1, 1, 5)[:, None]
            found["local"] = (
                found["global"][:, None] * weights + images.mean((1, 2, 3))[:, None, None]
            )
        return {name: found[name] for name in outputs}

    monkeypatch.setattr(CLIP, "encode_outputs", with_local)
    return register_trainer(Patches)


def test_outputs_are_kept_apart(run, build, patches, store, tmp_path):
    full = (*store, "FEATURES.MODE", "full")
    found = {}
    for mode in ("off", "full", "full again"):
        forget()
        content = run("Patches", *store, "FEATURES.MODE", mode.split()[0], output=tmp_path / mode)
        found[mode] = content["tasks"]
    assert found["off"] == found["full"] == found["full again"]
    before = files(tmp_path)
    assert len(before) == 4  # training and test images, two outputs each
    run("MTCoOpHard", *full, output=tmp_path / "other")
    assert files(tmp_path) == before  # which reads the global ones
    batch = next(iter(build("Patches", *full).train_loader_x))
    assert (batch["feat"].shape, batch["local"].shape) == ((8, 64), (8, 5, 64))


def test_features_and_learned_weights_are_those_of_the_images(build, run, tmp_path, store):
    plain = features_of(build("MTCoOpHard"))
    kept = features_of(build("MTCoOpHard", *store, "FEATURES.MODE", "full"))
    assert set(kept) == set(plain)
    assert relative(torch.stack(list(kept.values())), torch.stack(list(plain.values()))) <= 1e-6
    steps = ("OPTIM.MAX_EPOCH", 5, "OPTIM.LR", 0.02, *DRAWN)  # 4 steps in an epoch
    learned = {}
    for mode in ("off", "full"):
        run("MTCoOp", *store, "FEATURES.MODE", mode, *steps, output=tmp_path / mode)
        path = tmp_path / mode / "prompt_learner" / "model.pth.tar-5"
        state = load_checkpoint(path)["state_dict"]
        learned[mode] = torch.cat([value.flatten() for value in state.values()])
    assert relative(learned["full"], learned["off"]) <= 1e-4


def test_the_size_is_logged_before_it_starts(run, tmp_path, store):
    views = ("FEATURES.VIEWS", 3, "OPTIM.MAX_EPOCH", 5, *DRAWN)
    run("MTCoOpHard", *store, *views, "FEATURES.MODE", "full")
    log = (tmp_path / "run" / "log.txt").read_text()
    size = (3 * 36 + 27) * 64 * 4 / 1000
    said = f"Image features: at most {size:,.1f} kB in {tmp_path / 'features'}: 108 of training"
    assert said in log
    assert log.index(said) < log.index("Computing the features of 36 images")


def test_the_least_recently_used_are_deleted(run, tmp_path, store):
    limit = ("FEATURES.LIMIT_GB", 3 * 36 * 64 * 4 * 1e-9)  # about three passes of two epochs
    views = (*DRAWN, "OPTIM.MAX_EPOCH", 5, "TEST.NO_TEST", True)
    run("MTCoOpHard", *store, *limit, *views, "FEATURES.MODE", "full")
    left = [path.parent.name for path in files(tmp_path)]
    assert 0 < len(left) < 5
    assert "1-4" in left
    assert "1-0" not in left
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "exceeds FEATURES.LIMIT_GB" in log
    assert "Deleted the features in" in log


def test_a_folder_that_cannot_be_written_to(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    options = ("FEATURES.DIR", tmp_path / "file" / "features", "FEATURES.MODE", "full")
    content = run("MTCoOpHard", *options)
    assert content["status"] == "complete"
    assert "they stay in memory" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("DTYPE", "fp8", "FEATURES.DTYPE takes .*; got 'fp8'"),
        ("LIMIT_GB", 0.0, "FEATURES.LIMIT_GB takes .* above 0; got 0.0"),
    ],
)
def test_other_options(build, key, value, message):
    with pytest.raises(UserError, match=message):
        build("MTCoOpHard", f"FEATURES.{key}", value)
