"""Captioned images: Karpathy's layout, few pairs, and what is left out or refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from dassl.utils import UserError
from datasets._core.pairs import read_karpathy
from datasets.digit_captions import measure

SPLITS = ("train",) * 6 + ("restval", "val") + ("test",) * 3
ROOTS = {"Flickr30k": ("flickr30k", "flickr30k-images"), "MSCOCO": ("coco", ".")}


def entry(i, split, coco=False):
    sentences = [{"raw": f" Picture {i}  number {k} . ", "tokens": []} for k in range(5)]
    found = {"filename": f"{i}.jpg", "split": split, "sentences": sentences, "imgid": i}
    return {**found, "filepath": f"{split}2014"} if coco else found


def write(root, name, entries=None):
    """A miniature in the original layout; returns the configuration."""
    folder, images = ROOTS[name]
    coco = name == "MSCOCO"
    entries = entries or [entry(i, split, coco) for i, split in enumerate(SPLITS)]
    (root / folder).mkdir(parents=True)
    for one in entries:
        path = root / folder / images / one.get("filepath", "") / one["filename"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * entries.index(one), 0, 0)).save(path)
    file = root / folder / f"dataset_{'coco' if coco else 'flickr30k'}.json"
    file.write_text(json.dumps({"dataset": name, "images": entries}))
    return config(root, name)


def config(root, name, **values):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.SEED = str(root), name, 1
    for key, value in values.items():
        cfg.DATASET[key] = value
    return cfg


@pytest.mark.parametrize("name", ROOTS)
def test_layout(tmp_path, name):
    data = build_dataset(write(tmp_path, name))
    assert [len(part) for part in (data.train_x, data.val, data.test)] == [6, 1, 3]
    task = data.space.tasks[0]
    assert len(task.texts) == 6 + 5 + 15  # one caption per training image, all of the others
    for item in (*data.train_x, *data.val, *data.test):
        number = item.impath.rpartition("/")[2].partition(".")[0]
        own = [t for t, i in zip(task.texts, task.image, strict=True) if i == item.label]
        assert own and all(text.startswith(f"Picture {number} number ") for text in own)
        assert Image.open(item.impath).size == (8, 8)
    assert all("  " not in text and not text.endswith(".") for text in task.texts)
    assert task.part == (0,) * 6 + (1,) + (2,) * 3


def test_few_pairs(tmp_path):
    write(tmp_path, "Flickr30k")
    draws = {}
    for seed in (1, 1, 2, 3):
        cfg = config(tmp_path, "Flickr30k", NUM_SHOTS=3)
        cfg.SEED = seed
        data = build_dataset(cfg)
        drawn = tuple(data.space.tasks[0].texts[:3])
        assert len(data.train_x) == 3 and len(data.test) == 3
        assert draws.setdefault(seed, drawn) == drawn
    assert len(set(draws.values())) == 3


def test_the_hash_is_of_the_content(tmp_path):
    write(tmp_path / "a", "Flickr30k")
    write(tmp_path / "b", "Flickr30k")
    hashes = [build_dataset(config(tmp_path / x, "Flickr30k")).identity.draw for x in "ab"]
    other = build_dataset(config(tmp_path / "a", "Flickr30k", NUM_SHOTS=2)).identity.draw
    assert hashes[0] == hashes[1] != other


def test_what_is_left_out_is_counted(tmp_path, capsys):
    entries = [entry(i, split) for i, split in enumerate(SPLITS)]
    entries[0]["sentences"] = []
    entries[1]["sentences"] = [{"raw": " . "}]
    write(tmp_path, "Flickr30k", entries)
    (tmp_path / "flickr30k/flickr30k-images/2.jpg").unlink()
    data = build_dataset(config(tmp_path, "Flickr30k"))
    assert len(data.train_x) == 3
    out = capsys.readouterr().out
    assert "2 of 6 train images have no caption" in out
    assert "1 of 6 train images have no image in" in out and out.count("left out") == 2
    assert data.test_split_size == len(data.test)


def test_a_partial_test_split_knows_its_full_size(tmp_path):
    cfg = write(tmp_path, "Flickr30k")
    (tmp_path / "flickr30k/flickr30k-images/10.jpg").unlink()
    data = build_dataset(cfg)
    assert (len(data.test), data.test_split_size) == (2, 3)


def test_an_image_in_train_and_test_is_refused(tmp_path):
    cfg = write(
        tmp_path, "Flickr30k", [*(entry(i, s) for i, s in enumerate(SPLITS)), entry(0, "test")]
    )
    with pytest.raises(UserError, match=r"1 images are in train and test, such as .*/0.jpg"):
        build_dataset(cfg)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is not in Karpathy's layout"),
        ('{"annotations": []}', "is not in Karpathy's layout"),
        ('{"images": [3]}', r'image 0: needs "filename", "split"'),
        ('{"images": [{"filename": "a", "split": 3, "sentences": []}]}', "image 0: needs"),
        ('{"images": [{"filename": "a", "split": "x", "sentences": [{}]}]}', 'a text "raw"'),
        ('{"images": []}', "no images to train on"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    write(tmp_path, "Flickr30k")
    (tmp_path / "flickr30k/dataset_flickr30k.json").write_text(content)
    with pytest.raises(UserError, match=message):
        build_dataset(config(tmp_path, "Flickr30k"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"NUM_SHOTS": 7}, "asks for 7 training images of Flickr30k, but there are 6"),
        ({"SUBSAMPLE_CLASSES": "base"}, "SUBSAMPLE_CLASSES must be all, but is 'base'"),
        ({"SPLIT": "zhou"}, "SPLIT must be auto, but is 'zhou'"),
        ({"TEMPLATE": "a {}"}, "leave DATASET.TEMPLATE empty; it is 'a {}'"),
        ({"TASK_NAMES": ("photo",)}, "leave DATASET.TASK_NAMES empty"),
        ({"METRIC": "mean_acc"}, "leave DATASET.METRIC empty"),
        ({"ROOT": ""}, "Flickr30k needs a data folder"),
        ({"ROOT": "/nowhere"}, "there is no folder /nowhere/flickr30k"),
    ],
)
def test_refused(tmp_path, values, message):
    write(tmp_path, "Flickr30k")
    with pytest.raises(UserError, match=message):
        build_dataset(config(tmp_path, "Flickr30k", **values))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["images", "filename", "split", "sentences", "raw", "filepath"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(content=json_values)
def test_any_json_is_read_or_named(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    try:
        parts = read_karpathy(path)
    except UserError as error:
        assert "any.json" in str(error)
    else:
        assert set(parts) == {"train", "val", "test"}


def test_captions_of_digits_are_true(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = build_dataset(config("", "DigitCaptions"))
    assert (len(data.train_x), len(data.val), len(data.test)) == (700, 65, 83)
    texts = [item.caption for item in data.test]
    assert len(set(texts)) == len(texts)  # a text of the test images is true of one of them
    from sklearn.datasets import load_digits

    digits = load_digits()
    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    ink = digits.images.sum((1, 2)) / digits.images.max((1, 2))
    for item in (*data.train_x[:50], *data.test[:50]):
        i = int(item.impath.rpartition("/")[2].removesuffix(".png"))
        head, *styles = item.caption.split(", ")
        assert head == f"the digit {words[digits.target[i]]}"
        if "thick" in styles:
            assert (ink < ink[i]).mean() > 0.6
        if "thin" in styles:
            assert (ink < ink[i]).mean() < 0.4
        assert sum("leaning" in s or s == "upright" for s in styles) == 1
    upright = [item for item in data.train_x if "upright" in item.caption]
    assert len(upright) == pytest.approx(700 / 3, abs=40)


def test_slant_and_ink_are_measured():
    rows, columns = np.indices((8, 8))
    upright = (np.abs(columns - 3) < 1) * 255
    right = (np.abs(columns - (6 - rows * 0.6)) < 1) * 255  # the top is further right
    wide = (np.abs(columns - 3) < 3) * 255
    assert measure(upright)["slant"] == pytest.approx(0)
    assert measure(right)["slant"] == pytest.approx(0.6, abs=0.15)
    assert measure(right[::-1])["slant"] == pytest.approx(-0.6, abs=0.15)
    assert measure(wide)["ink"] == wide.sum() / 255
