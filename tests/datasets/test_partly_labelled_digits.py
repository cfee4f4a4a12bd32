"""Digits7's questions asked of the same images, half of the answers missing."""

import random
from collections import Counter

import pytest

from dassl.data import Datum
from dassl.utils import UserError
from datasets._core.digit_tasks import QUESTIONS
from datasets._core.shots import draw_shared_shots
from tests.datasets.folders import load, paths


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def suite(**options):
    return load("PartlyLabelledDigits", "/not/looked/at", **options)


@pytest.fixture(scope="module")
def whole(cache):
    return suite()


@pytest.fixture(scope="module")
def digits(cache):
    return load("Digits7", "/not/looked/at")


def test_tasks_and_test_images_are_those_of_digits7(whole, digits):
    names = [member.task_name for member in QUESTIONS]
    assert whole.space.tasknames == names and whole.space.sizes == digits.space.sizes
    key = lambda item: (item.task, item.impath, item.label)  # noqa: E731
    assert sorted(map(key, whole.test)) == sorted(map(key, digits.test))


@pytest.mark.parametrize("part", ["train_x", "val"])
def test_half_of_the_answers_are_missing_and_the_others_are_right(whole, digits, part):
    right = {(d.impath, d.task): d.label for d in getattr(digits, part)}
    items = getattr(whole, part)
    assert all(right[d.impath, d.task] == d.label for d in items)
    per_image = Counter(paths(items))
    assert set(per_image.values()) == {3, 4}
    assert len(items) == len(right) // 2 and len(per_image) == len(right) // 7
    assert [(d.impath, d.task) for d in items] == [
        (d.impath, d.task) for d in getattr(suite(), part)
    ]


@pytest.mark.parametrize("shots", [1, 4])
def test_every_class_of_every_task_has_as_many_labels_as_shots(whole, shots):
    drawn = suite(NUM_SHOTS=shots)
    counts = Counter((d.task, d.label) for d in drawn.train_x)
    assert set(counts.values()) == {shots} and len(counts) == whole.num_classes == 24
    images = len(set(paths(drawn.train_x)))
    assert images < len(drawn.train_x) * 0.7  # several labels an image, where drawn for each task
    known = {(d.impath, d.task, d.label) for d in whole.train_x}
    assert {(d.impath, d.task, d.label) for d in drawn.train_x} <= known


def test_labels_of_few_images_against_a_naive_draw():
    rng = random.Random(5)
    items = [
        Datum(f"{i}.png", rng.randrange(3), task=t)
        for i in range(40)
        for t in rng.sample(range(4), 2)
    ]
    drawn = draw_shared_shots(items, 2, random.Random(1))
    order = random.Random(1).sample([f"{i}.png" for i in range(40)], 40)
    wanted = []
    for image in order:
        for item in items:
            if item.impath == image:
                before = [d for d in wanted if (d.task, d.label) == (item.task, item.label)]
                wanted += [item] if len(before) < 2 else []
    assert drawn == wanted


def test_there_is_one_split():
    with pytest.raises(UserError, match="SPLIT is 'zhou'"):
        suite(SPLIT="zhou")
