"""Names that are one prompt to the tokenizer are refused, both by name, before training."""

import unicodedata

import pytest

from clip import load_backbone
from dassl.data.tasks import Task, TaskSpace
from dassl.utils import UserError
from prompting.equal_names import refuse_equal_classes, refuse_equal_tasks

COMPOSED = unicodedata.normalize("NFC", "café")
PAIRS = [
    ("Cat", "cat"),
    (COMPOSED, unicodedata.normalize("NFD", COMPOSED)),
    ("cat’s", "cat's"),
    ("a&b", "a&amp;b"),
    ("hot dog", "hot  dog"),
    ("hot dog", "hot_dog"),
    ("dog", " dog "),
]


@pytest.fixture(scope="module")
def text():
    return load_backbone("tiny/random").text_tower


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_equal_classes_are_refused_when_the_task_is_made(pair):
    with pytest.raises(UserError) as error:
        Task("pet", ("fish", *pair))
    assert all(repr(name) in str(error.value) for name in (*pair, "pet"))


@pytest.mark.parametrize("pair", [("ﬁsh", "fish"), ("ｃａｔ", "cat")], ids=str)
def test_what_only_the_tokenizer_knows_to_be_equal(text, pair):
    space = TaskSpace((Task("kind of bird", ("owl", "hawk")), Task("pet", ("dog", *pair))))
    with pytest.raises(UserError) as error:
        refuse_equal_classes(space, text)
    assert all(repr(name) in str(error.value) for name in (*pair, "pet"))


def test_the_same_name_in_two_tasks_is_no_fault(text):
    space = TaskSpace((Task("color of hat", ("red", "other")), Task("color of bag", ("Red", "x"))))
    refuse_equal_classes(space, text)
    refuse_equal_tasks(space, text)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_equal_task_names_are_refused_with_both_names(text, pair):
    space = TaskSpace(tuple(Task(name, ("red", "blue")) for name in pair))
    with pytest.raises(UserError) as error:
        refuse_equal_tasks(space, text)
    assert all(repr(name) in str(error.value) for name in pair)
