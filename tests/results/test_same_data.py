"""A run directory, a mean over seeds and a table row are of one data identity."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import parse_test_res
import train
from dassl.utils import UserError, read_json


def draw_images(root, classes=("cat", "dog"), n=8):
    """A folder of small images per class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def train_on(root, output, *opts, seed=1, quiet=True):
    words = ["--trainer", "CoOp", "--config-file", "configs/trainers/CoOp/tiny_ep50.yaml"]
    words += ["--dataset-config-file", "configs/datasets/image_folder.yaml", "--root", root]
    words += ["--output-dir", output, "--seed", seed, *(["--quiet"] if quiet else [])]
    words += ["OPTIM.MAX_EPOCH", 1, "DATASET.NUM_SHOTS", 1, *opts]
    return train.main(train.parse_args([str(word) for word in words]))


def parse(capsys, *argv):
    code = parse_test_res.command([str(word) for word in argv])
    out, err = capsys.readouterr()
    return code, out, err


def replace_images(root):
    shutil.rmtree(root)
    draw_images(root, ("bolt", "nut"))


def add_class(root):
    draw_images(root, ("horse",))


def name_classes(root):
    (root / "classnames.txt").write_text("old cat\nyoung dog\n")


CHANGES = {
    "other images": (replace_images, "class names"),
    "edited names": (name_classes, "class names"),
}
STALE_SPLITS = {
    "an added class": (add_class, "lacks 1 classes .*: horse; delete that file"),
    "a removed class": (lambda root: shutil.rmtree(root / "cat"), "images that are not in"),
}


@pytest.mark.parametrize("status", ["complete", "interrupted"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_run_directory_is_of_one_data(tmp_path, change, status):
    root, output = draw_images(tmp_path / "images"), tmp_path / "run"
    content = train_on(root, output)
    (output / "results.json").write_text(json.dumps({**content, "status": status}))
    act, difference = CHANGES[change]
    act(root)
    with pytest.raises(UserError, match=rf"holds a run on other data \({status}\): .*{difference}"):
        train_on(root, output)
    assert read_json(output / "results.json")["status"] == status


@pytest.mark.parametrize("change", STALE_SPLITS)
def test_a_stored_split_is_of_the_classes_that_there_are(tmp_path, change):
    root, output = draw_images(tmp_path / "images"), tmp_path / "run"
    train_on(root, output)
    act, message = STALE_SPLITS[change]
    act(root)
    for folder in (output, tmp_path / "another run"):
        with pytest.raises(UserError, match=message):
            train_on(root, folder)


def test_images_left_out_of_a_complete_run_are_named(tmp_path, capsys):
    root, output = draw_images(tmp_path / "images"), tmp_path / "run"
    train_on(root, output)
    shutil.copy(root / "cat" / "0.png", root / "cat" / "new.png")
    for quiet in (True, False):
        capsys.readouterr()
        train_on(root, output, quiet=quiet)
        assert ("left out, since not in " in capsys.readouterr().out) is not quiet


def test_the_same_data_elsewhere_is_the_same(tmp_path):
    content = train_on(draw_images(tmp_path / "images"), tmp_path / "run")
    assert content["schema"] == 2
    shutil.copytree(tmp_path / "images", tmp_path / "mount" / "images")
    assert train_on(tmp_path / "mount" / "images", tmp_path / "run") == content


def test_an_old_record_holds_nothing_to_compare(tmp_path):
    root, output = draw_images(tmp_path / "images"), tmp_path / "run"
    old = train_on(root, output)
    del old["data"], old["hashes"]["data"], old["hashes"]["experiment"]
    old["schema"] = 1
    (output / "results.json").write_text(json.dumps(old))
    name_classes(root)
    assert train_on(root, output) == old


def test_an_overwritten_weight_file_is_other_weights(tmp_path):
    from safetensors.torch import save_file

    from clip.tiny import tiny_weights

    root, file = draw_images(tmp_path / "images"), tmp_path / "tiny.safetensors"
    weights = {name: tensor.contiguous() for name, tensor in tiny_weights().items()}
    opts = ("MODEL.BACKBONE.NAME", file, "MODEL.BACKBONE.ARCH", "tiny")
    save_file(weights, file)
    content = train_on(root, tmp_path / "run", *opts)
    assert train_on(root, tmp_path / "run", *opts) == content
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, file)
    with pytest.raises(UserError, match="holds a run from other weights"):
        train_on(root, tmp_path / "run", *opts)


def test_seeds_of_other_data_are_not_averaged(tmp_path, capsys):
    for seed, classes in ((1, ("cat", "dog")), (2, ("bolt", "nut"))):
        root = draw_images(tmp_path / f"site{seed}" / "images", classes)
        train_on(root, tmp_path / "runs" / f"seed{seed}", seed=seed)
    capsys.readouterr()
    code, _, err = parse(capsys, tmp_path / "runs")
    assert code == 2 and "not seeds of one experiment: data is" in err and "class names" in err
    code, out, _ = parse(capsys, tmp_path / "runs", "--table", "text")
    assert code == 0 and out.count("ImageFolder (images, data ") == 2
