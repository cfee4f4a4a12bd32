"""A finished run in Python: it predicts as its evaluation did, and refuses what it cannot do."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import softcpt
from dassl.utils import UserError
from softcpt.images import load_images
from tests.conftest import TASKS
from tests.trainers._methods import METHODS

QUICK = ("CoCoOp", "CoOp", "MTCoOp", "ProtoNet", "TipAdapter", "VPT", "ZeroshotCLIP")


@pytest.mark.parametrize(
    "method",
    [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS],
)
def test_predicting_the_test_images_gives_the_recorded_results(method, loaded, held_out):
    check_results(loaded(method), held_out)


def test_image_features_that_depend_on_the_task(runs, held_out):
    """SoftCPT with generated prompts in the image tower, others for every task."""
    words = ("TRAINER.MTCOOP.DEPTH", 2, "TRAINER.MTCOOP.IMAGE_PROMPTS", True)
    folder = runs("MTCoOp", *words, "MODEL.BACKBONE.NAME", "tiny-vit/random")
    check_results(softcpt.load_run(folder), held_out)


def check_results(run, held_out):
    """Every task's test images are classified as the run recorded."""
    assert repr(run).startswith(f"<LoadedRun {run.folder}: ")
    for t, recorded in enumerate(run.record["tasks"]):
        paths, labels = zip(*held_out(t), strict=True)
        found = run.predict(paths, task=t, top=1)
        names = [TASKS[t].classnames[label] for label in labels]
        right = sum(one.label == name for one, name in zip(found, names, strict=True))
        assert right == recorded["correct"] and len(found) == recorded["total"]


def test_predictions_are_the_softmax_within_each_task(loaded, held_out):
    run = loaded("MTCoOp")
    path, _ = held_out(0)[0]
    found = run.predict(path)
    assert [one.task for one in found] == [task.name for task in TASKS]
    logits = run.logits([path])
    assert logits.shape == (1, 9) and logits.dtype == torch.float32
    expected = logits[0, 3:5].softmax(0)
    assert found[1].probability == pytest.approx(expected.max().item())
    assert found[1].label == TASKS[1].classnames[int(expected.argmax())]
    assert len(found[2].labels) == 4 and sum(found[2].probabilities) == pytest.approx(1)
    for name in ("stripes", "task2", 2):
        assert torch.equal(run.logits(path, name), logits[:, 5:])


def test_images_in_memory_equal_their_files(loaded, held_out):
    run, (path, _) = loaded("CoOp"), held_out(0)[0]
    with Image.open(path) as image:
        assert torch.equal(run.logits(image), run.logits(path))
        assert run.predict(image)[0].image == path


def test_text_features_give_the_logits(loaded, held_out):
    run, (path, _) = loaded("CoOp"), held_out(2)[0]
    clip = run.trainers[2].clip
    x = F.normalize(clip.encode_image(next(load_images(run.cfg, [path], 1)).pixels), dim=-1)
    logits = clip.logit_scale.exp() * x @ run.text_features("stripes").T
    assert torch.allclose(logits, run.logits(path, "stripes"), atol=1e-4)
    assert run.text_features().shape == (9, 64)
    with pytest.raises(UserError, match="CoCoOp"):
        loaded("CoCoOp").text_features()


def test_prompts_in_words(loaded):
    lines = loaded("CoOp").prompts()
    assert "stripes:" in lines and any("grass green." in line for line in lines)


def test_an_unreadable_image_is_named(loaded, held_out, tmp_path):
    run, good = loaded("CoOp"), held_out(0)[0][0]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    found = list(run.classify([str(bad), good], task=0, batch_size=1))
    assert [bool(one.error) for one in found] == [True, False]
    assert found[1] == run.predict(good, task=0)[0] and str(bad) in found[0].error
    assert " at 0x" not in found[0].error and "split" not in found[0].error
    for call in (run.predict, run.logits):
        with pytest.raises(UserError, match=r"bad\.png"):
            call([good, bad], task=0)


def test_a_damaged_image_in_memory_is_named(loaded, held_out, tmp_path):
    """PIL reads the pixels of a file only when they are needed."""
    Image.effect_noise((200, 200), 90).save(tmp_path / "whole.jpg")
    part = tmp_path / "part.jpg"
    part.write_bytes((tmp_path / "whole.jpg").read_bytes()[:4000])
    with Image.open(part) as damaged, Image.open(held_out(0)[0][0]) as good:
        found = list(loaded("CoOp").classify([good, damaged, good], task=0))
    assert [str(part) in one.error for one in found] == [False, True, False]
    assert [bool(one.label) for one in found] == [True, False, True]


def test_images_are_one_or_several_paths_and_pil_images(loaded, held_out):
    run, paths = loaded("CoOp"), [path for path, _ in held_out(0)]
    assert len(run.predict(iter(paths), task=0)) == len(paths)
    assert list(run.classify(paths[0], task=0)) == run.predict(paths[0], task=0)
    assert run.predict([]) == []
    pixels = torch.zeros(32, 32, 3)
    for wrong in (pixels, [pixels], pixels.numpy(), None, [None], b"a.jpg", [3]):
        with pytest.raises(UserError, match="PIL"):
            run.predict(wrong)


def test_loading_leaves_the_random_generator_alone(runs):
    before = torch.random.get_rng_state()
    softcpt.load_run(runs("MTCoOp"))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("task", ["flowers", 3, "task7", -1])
def test_unknown_tasks_are_refused(task, loaded, held_out):
    with pytest.raises(UserError, match=r"stripes \(task2\)"):
        loaded("CoOp").predict(held_out(0)[0][0], task=task)


def test_new_class_names(runs, held_out):
    names = ("one", "two", "three words here")
    for method in ("CoOp", "MTCoOp", "CoCoOp", "ZeroshotCLIP"):
        run = softcpt.load_run(runs(method), task="stripes", classes=names)
        assert run.predict(held_out(2)[0][0], task=2)[0].label in names
        assert run.tasks[0] == softcpt.load_run(runs(method)).tasks[0]


def test_a_new_task_name_changes_the_prompts_of_softcpt(runs, loaded):
    run = softcpt.load_run(runs("MTCoOp"), task=2, task_name="breed of dog")
    before, after = loaded("MTCoOp").text_features(), run.text_features()
    assert run.tasks[2].name == "breed of dog"
    assert torch.allclose(before[:5], after[:5], atol=1e-6)
    assert not torch.allclose(before[5:], after[5:], atol=1e-3)


@pytest.mark.parametrize("classes", ["a, b", ("a", ""), ("a", "_"), ("a", None)])
def test_what_is_no_list_of_class_names(classes, runs):
    with pytest.raises(UserError, match="class"):
        softcpt.load_run(runs("CoOp"), task=0, classes=classes)


def test_a_name_that_is_too_long_is_not_blamed_on_the_backbone(runs):
    with pytest.raises(UserError, match="context of 77") as error:
        softcpt.load_run(runs("ZeroshotCLIP"), task=0, classes=("word " * 100, "b"))
    assert "--backbone" not in str(error.value)


@pytest.mark.parametrize("method", ["TipAdapter", "ProtoNet"])
def test_names_that_parameters_belong_to_stay(method, runs):
    with pytest.raises(UserError, match=method):
        softcpt.load_run(runs(method), task=0, classes=("a", "b", "c"))


def test_new_names_are_for_one_task(runs):
    with pytest.raises(UserError, match="--task"):
        softcpt.load_run(runs("CoOp"), classes=("a", "b"))


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of a run."""
    return shutil.copytree(runs("CoOp"), tmp_path / "copy")


def change_record(folder, **values):
    path = folder / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_is_no_finished_run_is_refused(copied, tmp_path):
    with pytest.raises(UserError, match="copy"):
        softcpt.load_run(tmp_path)
    change_record(copied, status="interrupted")
    with pytest.raises(UserError, match="interrupted"):
        softcpt.load_run(copied)
    assert softcpt.load_run(copied, epoch=1).tasks
    change_record(copied, schema=9)
    with pytest.raises(UserError, match="schema"):
        softcpt.load_run(copied)


@pytest.mark.parametrize("missing", ["config.yaml", "task1/prompt_learner/model.pth.tar-1"])
def test_a_run_without_a_file_is_refused(missing, copied):
    (copied / missing).unlink()
    with pytest.raises(UserError, match=missing.split("/")[-1]):
        softcpt.load_run(copied)


def test_a_method_that_is_not_registered(copied):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("NAME: CoOp", "NAME: MyOwn"))
    with pytest.raises(UserError, match=r"config\.yaml.*MyOwn.*trainers/") as error:
        softcpt.load_run(copied)
    assert "damaged" not in str(error.value)


def test_an_evaluation_has_no_checkpoint_to_load(copied):
    for path in copied.rglob("*.pth.tar*"):
        path.unlink()
    with pytest.raises(UserError, match="evaluation"):
        softcpt.load_run(copied)


def test_a_backbone_that_moved_or_changed(copied):
    config = copied / "config.yaml"
    config.write_text(config.read_text().replace("tiny/random", "gone/weights.pt"))
    with pytest.raises(UserError, match=r"gone/weights\.pt.*--backbone"):
        softcpt.load_run(copied)
    assert softcpt.load_run(copied, backbone="tiny/random").tasks


def test_a_run_without_words_needs_its_dataset(copied, toy, held_out):
    """Runs of earlier versions have no tasks.json."""
    expected = softcpt.load_run(copied).logits(held_out(0)[0][0])
    (copied / "tasks.json").unlink()
    assert torch.equal(softcpt.load_run(copied).logits(held_out(0)[0][0]), expected)
    with pytest.raises(UserError, match=r"tasks\.json"):
        softcpt.load_run(copied, task=0, classes=("a", "b"))


def test_training_from_python(toy, tmp_path):
    options = {
        "DATASET.NAME": "Toy",
        "DATASET.SUBSAMPLE_TASKS": "task1",
        "INPUT.TRANSFORMS": ("normalize",),
        "OPTIM.MAX_EPOCH": 1,
        "DATALOADER.NUM_WORKERS": 0,
        "OPTIM.LR": np.float64(0.25),
        "TRAINER.COOP.CTX_INIT": "a photo of a",
    }
    where = {"trainer": "CoOp", "backbone": "tiny/random", "quiet": True}
    run = softcpt.train_run(tmp_path / "run", **where, overrides=options)
    assert run.record["status"] == "complete" and len(run.tasks) == 1
    assert run.cfg.OPTIM.LR == 0.25
    again = softcpt.train_run(tmp_path / "run", **where, overrides=options)
    assert again.record == run.record
    gone = {**options, "DATASET.NAME": "ImageFolder", "DATASET.ROOT": tmp_path / "gone"}
    with pytest.raises(UserError, match="gone") as error:
        softcpt.train_run(tmp_path / "other", **where, overrides=gone)
    assert "PosixPath" not in str(error.value)
    with pytest.raises(UserError, match="output_dir"):
        softcpt.train_run("", **where, overrides=options)
    with pytest.raises(UserError, match=r"OPTIM\.LR\?"):
        softcpt.train_run(tmp_path / "run", **where, overrides={"OPTIM.LRR": 1})
