"""Identity of data: what changes it, what does not, and how a difference is named."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dassl.data import DatasetBase, Datum, Task, TaskSpace, first_difference, identify
from dassl.utils import UserError
from image_text import PairSpace, PairTask, QuestionSpace, QuestionTask

TASKS = (
    Task("kind of bolt", ("hex", "eye", "flat"), ("a photo of a {}.",)),
    Task("kind of leaf", ("oak", "elm"), ("a {} leaf.", "a leaf of {}.")),
)
ONE_TASK = TaskSpace(TASKS[:1])
SPLITS = ("train_x", "val", "test")


def items_of(roots=("/data/bolts", "/data/leaves"), start=0, count=3):
    return [
        Datum(f"{roots[t]}/{name}/{i}.png", label, 0, name, t)
        for t, task in enumerate(TASKS)
        for label, name in enumerate(task.classnames)
        for i in range(start, start + count)
    ]


def parts_of(roots=("/data/bolts", "/data/leaves")):
    return {name: items_of(roots, 10 * i) for i, name in enumerate(SPLITS)}


def build(parts=None, tasks=TASKS, roots=("/data/bolts", "/data/leaves")):
    parts = parts_of(roots) if parts is None else parts
    return DatasetBase(**parts, space=TaskSpace(tasks), image_roots=roots)


def hashes(dataset):
    return dataset.identity.draw, dataset.identity.shared


many = settings(max_examples=25, deadline=None)


@many
@given(rng=st.randoms())
def test_order_of_items_does_not_count(rng):
    parts = parts_of()
    for items in parts.values():
        rng.shuffle(items)
    assert build(parts).identity == build().identity


folders = st.text("ab ./é-", min_size=1, max_size=8).map(lambda text: f"/{text.strip('/')}x")


@many
@given(roots=st.tuples(folders, folders))
def test_place_of_the_image_folders_does_not_count(roots):
    assert build(roots=roots).identity == build().identity


@many
@given(root=folders)
def test_place_does_not_count_where_no_root_is_known(root):
    def without_roots(root):
        return DatasetBase(**parts_of([f"{root}/a", f"{root}/b"]), space=TaskSpace(TASKS))

    assert without_roots(root).identity == without_roots("/data").identity


@pytest.mark.parametrize(
    "spelling",
    [
        lambda path: path.replace("/hex/", "/./hex/"),
        lambda path: path.replace("/hex/", "//hex/"),
        lambda path: path.replace("/hex/", "/hex//"),
        lambda path: path.replace("/hex/", "\\hex\\"),
    ],
)
def test_spelling_of_a_path_does_not_count(spelling):
    parts = {
        name: [replace(d, impath=spelling(d.impath)) for d in items]
        for name, items in parts_of().items()
    }
    assert build(parts).identity == build().identity


def test_images_beside_the_folder_count_by_their_relative_path():
    def beside(place, folder):
        item = Datum(f"{place}/{folder}/a.png")
        return DatasetBase([item], test=[item], space=ONE_TASK, image_roots=[f"{place}/images"])

    one, moved, other = (
        hashes(beside(*where)) for where in (("/a", "more"), ("/mnt/a", "more"), ("/a", "lots"))
    )
    assert one == moved and one[0] != other[0]


def test_separator_of_a_path_does_not_count():
    parts, roots = parts_of(), ["C:\\data\\bolts", "C:\\data\\leaves"]
    parts = {
        name: [replace(d, impath="C:" + d.impath.replace("/", "\\")) for d in items]
        for name, items in parts.items()
    }
    assert build(parts, roots=roots).identity == build().identity


@many
@given(data=st.data())
def test_any_change_of_an_item_counts(data):
    parts = parts_of()
    split = data.draw(st.sampled_from(SPLITS))
    i = data.draw(st.integers(0, len(parts[split]) - 1))
    item = parts[split][i]
    changed = data.draw(
        st.sampled_from(
            [
                [replace(item, label=(item.label + 1) % len(TASKS[item.task].classnames))],
                [replace(item, impath=item.impath.replace(".png", "b.png"))],
                [replace(item, task=1 - item.task, label=0)],
                [item, item],
                [],
            ]
        )
    )
    parts[split] = [*parts[split][:i], *changed, *parts[split][i + 1 :]]
    one, two = build().identity, build(parts).identity
    assert one.draw != two.draw and (one.shared == two.shared) == (split != "test")
    assert first_difference(one.summary(), two.summary())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "sort of bolt"}, "'kind of bolt' before, 'sort of bolt' now"),
        ({"classnames": ("hex", "ring", "flat")}, "'kind of bolt': other class names"),
        ({"classnames": ("eye", "hex", "flat")}, "'kind of bolt': other class names"),
        ({"classnames": ("hex", "eye", "flat", "pin")}, "3 classes before, 4 now"),
        ({"templates": ("a {}.",)}, r"template \['a photo of a {}.'\] before, \['a {}.'\] now"),
    ],
)
def test_any_change_of_a_word_counts(change, words):
    other = build(tasks=(replace(TASKS[0], **change), TASKS[1]))
    assert not set(hashes(other)) & set(hashes(build()))
    found = first_difference(build().identity.summary(), other.identity.summary())
    assert re.search(words, found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["test"].pop(), "task 'kind of leaf': 6 test items before, 5 now"),
        (
            lambda p: p["train_x"].append(p["train_x"].pop(0).__class__("/data/bolts/z.png")),
            "task 'kind of bolt': other train items, or other labels of them",
        ),
    ],
)
def test_first_difference_names_the_split(change, words):
    parts = parts_of()
    change(parts)
    summaries = build().identity.summary(), build(parts).identity.summary()
    assert first_difference(*summaries) == words
    assert first_difference(summaries[0], json.loads(json.dumps(summaries[0]))) == ""


def test_summary_is_small():
    tasks = (Task("t", tuple(f"class {i}" for i in range(1000))),)
    items = [Datum(f"/r/{i}.png", i % 1000) for i in range(5000)]
    dataset = DatasetBase(items, test=items, space=TaskSpace(tasks), image_roots=["/r"])
    assert len(json.dumps(dataset.identity.summary())) < 1000


def test_number_of_tasks_is_named():
    one, two = build(), build().only_task(1)
    assert first_difference(one.identity.summary(), two.identity.summary()) == (
        "2 tasks before, 1 now"
    )
    assert two.identity.tasks == one.identity.tasks[1:]


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=st.binary(min_size=1, max_size=20))
def test_content_counts_on_demand_only(tmp_path, content):
    paths = [tmp_path / "images" / name for name in ("a.png", "b.png")]
    paths[0].parent.mkdir(exist_ok=True)
    for path in paths:
        path.write_bytes(b"")
    dataset = DatasetBase([Datum(str(paths[0]))], test=[Datum(str(paths[1]))])
    before, plain = identify(dataset, content=True), identify(dataset)
    paths[1].write_bytes(content)
    after = identify(dataset, content=True)
    assert plain.summary().keys() == before.summary().keys() - {"content"}
    assert before.content != after.content and (before.draw, before.shared) == hashes(dataset)
    found = first_difference(before.summary(), after.summary())
    assert "the files of the test items have another content" in found
    assert first_difference(plain.summary(), after.summary()) == ""
    paths[1].unlink()
    with pytest.raises(UserError, match=r"cannot read the image .*b\.png"):
        identify(dataset, content=True)


def pairs(captions, train):
    """Train images with a caption each, one test image with two."""
    texts = [*train, *captions]
    image = [*range(len(train)), *[len(train)] * 2]
    task = PairTask("photos", tuple(texts), tuple(image), (*[0] * len(train), 2))
    items = [Datum(f"/p/{i}.png", i) for i in range(len(train))]
    test = [Datum("/p/test.png", len(train))]
    return DatasetBase(items, test=test, space=PairSpace((task,)), image_roots=["/p"])


def test_captions_belong_to_the_items():
    one, two, other = (
        pairs(("a", "b"), ["x", "y"]),
        pairs(("a", "b"), ["x", "z", "u"]),
        pairs(("a", "c"), ["x", "y"]),
    )
    assert one.identity.shared == two.identity.shared != other.identity.shared
    assert one.identity.draw != two.identity.draw


def questions(votes=({0: 2, 1: 1}, {1: 3}), template="{question} {}"):
    task = QuestionTask(
        "photos",
        ("yes", "no"),
        questions=("is it?",),
        question=(0, 0),
        target=(0, 1),
        votes=votes,
        people=(3, 3),
        template=template,
    )
    items = [Datum("/q/a.png", 0, 0, "yes"), Datum("/q/b.png", 1, 0, "no")]
    return DatasetBase(items[:1], test=items[1:], space=QuestionSpace((task,)), image_roots=["/q"])


def test_answers_and_template_of_questions_count():
    assert hashes(questions()) == hashes(questions())
    assert questions().identity.shared != questions(({0: 2}, {1: 2})).identity.shared
    assert questions().identity.shared == questions(({0: 1}, {1: 3})).identity.shared
    assert questions().identity.draw != questions(({0: 1}, {1: 3})).identity.draw
    assert questions().identity.shared != questions(template="q: {question} {}").identity.shared
