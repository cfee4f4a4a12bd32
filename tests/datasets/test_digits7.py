"""The digits that come with scikit-learn, as seven tasks."""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets as sklearn_datasets

from dassl.config import get_cfg_default
from dassl.data import DataManager
from dassl.utils import UserError
from datasets import digit_labels, digits7
from datasets._core import digit_tasks, digits

CONFIG = Path(__file__).parents[2] / "configs/datasets/digits7.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A user's cache folder for the module."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def cfg(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    cfg = get_cfg_default()
    cfg.merge_from_file(CONFIG)
    cfg.SEED, cfg.DATASET.NUM_SHOTS, cfg.VERBOSE, cfg.DATASET.ROOT = 1, 4, False, "/not/looked/at"
    return cfg


@pytest.fixture
def suite(cfg):
    return digits7.Digits7(cfg)


def number(item):
    return int(Path(item.impath).stem)


def test_tasks(suite):
    tasks = suite.space.tasks
    assert [task.name for task in tasks] == [
        "digit identity", "odd or even", "number of loops", "size of the number",
        "kind of strokes", "prime or not", "multiple of three",
    ]  # fmt: skip
    assert suite.space.sizes == [10, 2, 3, 2, 3, 2, 2]
    assert {task.metric for task in tasks} == {"overall_acc"}
    assert [task.group for task in tasks] == ["trained words"] * 5 + ["unseen words"] * 2
    assert tasks[0].templates == ("a photo of the digit {}.",)
    assert {task.templates for task in tasks[1:]} == {("a photo of {}.",)}


def test_images_and_labels_are_those_of_scikit_learn(suite):
    digits = sklearn_datasets.load_digits()
    for item in suite.test[::97] + suite.train_x:
        i = number(item)
        with Image.open(item.impath) as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(image, np.round(digits.images[i] * 255 / 16))
        assert digits7.Digits7.members[item.task].answers[digits.target[i]] == item.label
    files = sorted(Path(suite.test[0].impath).parent.iterdir())
    assert [file.name for file in files] == [f"{i:04d}.png" for i in range(1797)]


def test_answers_are_right():
    answers = {
        digit_tasks.OddOrEven: lambda d: ["even", "odd"][d % 2],
        digit_tasks.NumberSize: lambda d: "less than five" if d < 5 else "at least five",
        digit_tasks.PrimeOrNot: lambda d: "prime" if d in (2, 3, 5, 7) else "not prime",
        digit_tasks.MultipleOfThree: lambda d: (
            ("" if d % 3 == 0 else "not a ") + "multiple of three"
        ),
        digit_tasks.NumberOfLoops: lambda d: (
            {0: "one", 4: "one", 6: "one", 8: "two", 9: "one"}.get(d, "no")
            + (" loop" if d in (0, 4, 6, 9) else " loops")
        ),
    }
    for member, answer in answers.items():
        said = [member.classnames[member.answers[digit]] for digit in range(10)]
        assert said == [answer(digit) for digit in range(10)]


def test_split_is_fixed_and_shared_by_all_tasks(cfg):
    cfg.DATASET.NUM_SHOTS = -1
    whole = digits7.Digits7(cfg)
    parts = {}
    for name in ("train_x", "val", "test"):
        by_task = [[number(d) for d in getattr(whole, name) if d.task == t] for t in range(7)]
        assert all(numbers == by_task[0] for numbers in by_task)
        parts[name] = set(by_task[0])
    assert [len(parts[name]) for name in ("train_x", "val", "test")] == [700, 200, 897]
    assert len(set.union(*parts.values())) == 1797
    cfg.SEED = 2
    assert digits7.Digits7(cfg).identity.draw == whole.identity.draw
    assert whole.split == "own"
    assert whole.identity.draw.startswith("40fc40d4c36d")


def test_each_task_draws_its_own_shots(cfg, suite):
    drawn = [tuple(number(d) for d in suite.train_x if d.task == t) for t in range(7)]
    assert [len(numbers) for numbers in drawn] == [4 * n for n in suite.space.sizes]
    assert len({frozenset(numbers) for numbers in drawn}) == 7
    same = digits7.Digits7(cfg)
    assert same.train_x == suite.train_x and same.identity.draw == suite.identity.draw
    cfg.SEED = 2
    assert digits7.Digits7(cfg).train_x != suite.train_x


def test_loads_through_the_data_manager_without_a_root(cfg):
    cfg.DATASET.ROOT, cfg.DATALOADER.NUM_WORKERS = "", 0
    assert tuple(cfg.INPUT.TRANSFORMS) == ("normalize",)
    cfg.INPUT.SIZE, cfg.INPUT.INTERPOLATION = (32, 32), "bilinear"
    cfg.INPUT.PIXEL_MEAN, cfg.INPUT.PIXEL_STD = [0.3] * 3, [0.35] * 3
    dm = DataManager(cfg)
    batch = next(iter(dm.train_loader_x))
    assert batch["img"].shape == (32, 3, 32, 32)
    assert len(dm.dataset.test) == 7 * 897


def test_split_files_of_others_are_refused(cfg):
    cfg.DATASET.SPLIT = "zhou"
    with pytest.raises(UserError, match="Digits7 has one split: take auto or own"):
        digits7.Digits7(cfg)
    cfg.DATASET.NAME = "DigitLabels"
    with pytest.raises(UserError, match="DigitLabels has one split: take auto or own"):
        digit_labels.DigitLabels(cfg)


def _write(cache):
    import os

    os.environ["XDG_CACHE_HOME"] = cache
    return str(digits.digit_folder())


def test_processes_may_write_it_at_once(tmp_path):
    with ProcessPoolExecutor(3) as pool:
        folders = set(pool.map(_write, [str(tmp_path)] * 3))
    (found,) = map(Path, folders)
    assert len([*found.glob("images/*.png")]) == 1797
    assert {path.name for path in found.parent.iterdir()} <= {found.name, f"{found.name}.lock"}


def test_bytes_of_the_images_are_the_same_everywhere(suite):
    folder = Path(suite.test[0].impath).parent
    content = b"".join(path.read_bytes() for path in sorted(folder.iterdir()))
    assert hashlib.sha256(content).hexdigest().startswith("99bc00270a852e7a")


def test_other_digits_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "cache_folder", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.setattr(digits, "CONTENT", "0" * 64)
    with pytest.raises(UserError, match="install another version of scikit-learn"):
        digits.digit_folder()
    assert [*tmp_path.glob("digits7/*")] == [tmp_path / "digits7" / "000000000000.lock"]


def test_unwritable_cache_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(digits, "cache_folder", lambda *parts: tmp_path.joinpath("file", *parts))
    with pytest.raises(UserError, match=r"cannot write the digits to .*XDG_CACHE_HOME"):
        digits.digit_folder()


def test_cache_is_the_users():
    assert digits.cache_folder().name == "softcpt"
