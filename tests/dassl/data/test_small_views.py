"""Small images that are decoded only once in a process."""

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.config import get_cfg_default
from dassl.data import DatasetWrapper, Datum
from dassl.data.small_views import SmallViews
from dassl.data.wrapper import decode


@pytest.fixture
def cfg():
    cfg = get_cfg_default()
    cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS, cfg.INPUT.INTERPOLATION = (8, 8), (), "bilinear"
    return cfg


@pytest.fixture
def items(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    for i in range(2):
        Image.fromarray(pixels[i]).save(tmp_path / f"{i}.png")
    return [Datum(str(tmp_path / f"{i}.png")) for i in range(2)]


@pytest.fixture
def decoded(monkeypatch):
    """Paths of the images that were decoded."""
    paths = []

    def recorded(content, path, upright=False):
        paths.append(path)
        return decode(content, path, upright)

    monkeypatch.setattr("dassl.data.wrapper.decode", recorded)
    monkeypatch.setattr("dassl.data.wrapper.small_views", SmallViews())
    return paths


def test_datasets_share_them(cfg, items, decoded):
    first, second = (DatasetWrapper(cfg, items) for _ in range(2))
    view = first[0]["img"]
    copy = view.clone()
    for data in (second, first, second):
        view.zero_()  # a batch that is changed in place
        view = data[0]["img"]
        assert torch.equal(view, copy)
    assert len(decoded) == 1


def test_changed_files_are_decoded_again(cfg, items, decoded):
    data = DatasetWrapper(cfg, items)
    before, other = data[0]["img"], data[1]["img"]
    with open(items[1].impath, "rb") as source, open(items[0].impath, "wb") as target:
        target.write(source.read())
    assert torch.equal(data[0]["img"], other) and not torch.equal(other, before)
    assert len(decoded) == 2  # the new content is that of another image


@pytest.mark.parametrize("case", ["large", "augmented", "transform of one's own"])
def test_others_are_decoded_each_time(cfg, items, decoded, case):
    cfg.INPUT.SIZE = (80, 80) if case == "large" else (8, 8)
    cfg.INPUT.TRANSFORMS = ("random_flip",) if case == "augmented" else ()
    own = (lambda image: torch.zeros(3, 2, 2)) if case.startswith("transform") else None
    data = DatasetWrapper(cfg, items, own, is_train=case == "augmented")
    assert torch.equal(data[0]["img"], data[0]["img"])
    assert len(decoded) == 2


def test_memory_is_limited(monkeypatch):
    monkeypatch.setattr("dassl.data.small_views.LIMIT", 1000)
    views, made = SmallViews(), []

    def make():
        made.append(1)
        return torch.zeros(200)  # 800 bytes

    for key in ("a", "b", "a", "b"):
        views.get(key, make)
    assert len(made) == 3
