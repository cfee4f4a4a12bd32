"""VQAv2's layout, candidate answers, few questions, and what is left out or refused."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import train
from dassl.config import get_cfg_default
from dassl.data.datasets import build_dataset
from dassl.utils import UserError
from datasets._core.preview import GAP, LABEL, SIDE, contact_sheet
from datasets.vqav2 import read_annotations, read_questions

PHOTOS = {"train2014": (458752, 9, 25, 30), "val2014": (42, 73)}
# Most frequent answers to the three questions on each photo, and whoever disagrees.
ANSWERS = {"train2014": ["Yes", "2", "a  cat"], "val2014": ["yes", "dog", "yes"]}


def entries(part):
    """Questions and annotations of a part, three on each photo."""
    questions, annotations = [], []
    for image in PHOTOS[part]:
        for k, answer in enumerate(ANSWERS[part]):
            ids = {"image_id": image, "question_id": 1000 * image + k}
            questions.append({**ids, "question": f" What  is it, {k}?"})
            given = [answer] * 7 + ["no"] * 3
            listed = [
                {"answer": a, "answer_confidence": "yes", "answer_id": i + 1}
                for i, a in enumerate(given)
            ]
            about = {"question_type": "what is", "answer_type": "other", "answers": listed}
            annotations.append({**ids, **about, "multiple_choice_answer": answer})
    return questions, annotations


def file(root, part, kind):
    stem = {"questions": "v2_OpenEnded_mscoco", "annotations": "v2_mscoco"}[kind]
    return root / "vqav2" / f"{stem}_{part}_{kind}.json"


def write(root, change=lambda part, questions, annotations: None):
    """A miniature in the original layout; returns the configuration."""
    for part, images in PHOTOS.items():
        folder = root / "vqav2" / part
        folder.mkdir(parents=True)
        for image in images:
            Image.new("RGB", (8, 8), (image % 256, 0, 0)).save(
                folder / f"COCO_{part}_{image:012d}.jpg"
            )
        lists = entries(part)
        change(part, *lists)
        for kind, listed in zip(("questions", "annotations"), lists, strict=True):
            head = {"info": {"version": "2.0"}, "data_subtype": part}
            file(root, part, kind).write_text(json.dumps({**head, kind: listed}))
    return config(root)


def config(root, name="VQAv2", **values):
    cfg = get_cfg_default()
    cfg.DATASET.ROOT, cfg.DATASET.NAME, cfg.SEED = str(root), name, 1
    for key, value in values.items():
        node = cfg.DATASET if key in cfg.DATASET else cfg.DATASET.QUESTIONS
        node[key] = value
    return cfg


def test_layout(tmp_path):
    data = build_dataset(write(tmp_path))
    assert [len(part) for part in (data.train_x, data.val, data.test)] == [12, 0, 6]
    task = data.space.tasks[0]
    assert task.answers == ("2", "a cat", "yes")  # equally frequent: by the alphabet
    assert task.questions == ("What is it, 0?", "What is it, 1?", "What is it, 2?")
    for number, item in enumerate((*data.train_x, *data.test)):
        assert item.label == number and Image.open(item.impath).size == (8, 8)
        assert task.question[number] == number % 3
    assert [item.impath.rpartition("/")[2] for item in data.test[::3]] == [
        "COCO_val2014_000000000042.jpg",
        "COCO_val2014_000000000073.jpg",
    ]
    assert task.target[:3] == (2, 0, 1) and task.target[12:15] == (2, -1, 2)
    assert task.votes[0] == {2: 7} and task.votes[13] == {} and set(task.people) == {10}


def test_few_questions(tmp_path):
    write(tmp_path)
    draws = {}
    for seed in (1, 1, 2, 3):
        cfg = config(tmp_path, NUM_SHOTS=4, NUM_TEST=2)
        cfg.SEED = seed
        data = build_dataset(cfg)
        task = data.space.tasks[0]
        drawn = tuple((item.impath, task.question[item.label]) for item in data.train_x)
        assert len(drawn) == 4 and (len(data.test), data.test_split_size) == (2, 6)
        assert [task.questions[task.question[item.label]][-2] for item in data.test] == ["1", "2"]
        assert draws.setdefault(seed, drawn) == drawn
    assert len(set(draws.values())) == 3


def test_candidates_are_the_most_frequent(tmp_path, capsys):
    def change(part, questions, annotations):
        if part == "train2014":
            annotations[1]["multiple_choice_answer"] = "YES "

    write(tmp_path, change)
    data = build_dataset(config(tmp_path, CANDIDATES=2))
    assert data.space.classnames == ["yes", "a cat"]
    assert len(data.train_x) == 9
    assert "3 of 12 training questions of VQAv2 have an answer that is none of the 2" in (
        capsys.readouterr().out
    )


def test_held_out_questions_share_no_image(tmp_path):
    write(tmp_path)
    data = build_dataset(config(tmp_path, NUM_VAL=4))
    assert len(data.val) == 4 and len(data.train_x) == 6
    assert not {item.impath for item in data.val} & {item.impath for item in data.train_x}
    # noted down once, so that neither this code nor Python may change it unnoticed
    assert {item.impath[-10:-4] for item in data.val} == {"458752", "000025"}
    few = build_dataset(config(tmp_path, NUM_VAL=4, NUM_SHOTS=2))
    assert [item.impath for item in few.val] == [item.impath for item in data.val]


def test_the_hash_is_of_the_content(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    hashes = [build_dataset(config(tmp_path / x)).identity.draw for x in "ab"]
    other = build_dataset(config(tmp_path / "a", NUM_SHOTS=2)).identity.draw
    fewer = build_dataset(config(tmp_path / "a", CANDIDATES=2)).identity.draw
    assert len({*hashes, other, fewer}) == 3 and hashes[0] == hashes[1]


def test_what_is_left_out_is_counted(tmp_path, capsys):
    def change(part, questions, annotations):
        if part == "train2014":
            annotations[0]["answers"] = []
            questions[1]["question"] = " "
            del annotations[2], questions[5]

    write(tmp_path, change)
    (tmp_path / "vqav2/train2014/COCO_train2014_000000000030.jpg").unlink()
    data = build_dataset(config(tmp_path))
    assert len(data.train_x) == 12 - 3 - 1 - 3
    out = capsys.readouterr().out
    assert "3 of 11 train questions have no words or no answers" in out
    assert "1 answered questions of" in out
    assert "3 of 11 train questions have no image in" in out


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("questions", "{", "questions.json is not valid JSON"),
        ("questions", "[]", "is not one of VQAv2's files of questions: it must hold"),
        ("questions", '{"annotations": []}', "is not one of VQAv2's files of questions"),
        ("annotations", '{"questions": []}', "is not one of VQAv2's files of annotations"),
        ("questions", '{"questions": [3]}', "questions.json, question 0: needs the numbers"),
        ("annotations", '{"annotations": [{}]}', "annotations.json, annotation 0: needs"),
        ("annotations", '{"annotations": []}', "answers none of the 12 questions of"),
        ("questions", '{"questions": []}', "no question in its train part"),
    ],
)
def test_other_files_are_refused(tmp_path, kind, content, message):
    cfg = write(tmp_path)
    file(tmp_path, "train2014", kind).write_text(content)
    with pytest.raises(UserError, match=message):
        build_dataset(cfg)


def test_files_that_do_not_belong_together(tmp_path):
    cfg = write(tmp_path)
    other = file(tmp_path, "val2014", "annotations").read_text()
    file(tmp_path, "train2014", "annotations").write_text(other)
    with pytest.raises(UserError, match=r"answers none of the 12 questions of .*train2014"):
        build_dataset(cfg)
    listed = json.loads(other)["annotations"]
    for entry, image in zip(listed, (9, 9, 9, 25, 25, 25), strict=True):
        entry["question_id"] = 1000 * image + entry["question_id"] % 1000
    file(tmp_path, "train2014", "annotations").write_text(json.dumps({"annotations": listed}))
    with pytest.raises(UserError, match=r"question 9000 is on image 9 in .*, but on 42 in"):
        build_dataset(cfg)


def test_numbers_stand_once(tmp_path):
    for kind, message in (("questions", "holds question 42000 twice"), ("annotations", "answers")):
        cfg = write(tmp_path / kind)
        path = file(tmp_path / kind, "val2014", kind)
        content = json.loads(path.read_text())
        content[kind].append(content[kind][0])
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            build_dataset(cfg)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"NUM_SHOTS": 13}, "asks for 13 training questions of VQAv2, but there are 12"),
        ({"NUM_TEST": 7}, "NUM_TEST asks for 7 test questions of VQAv2, but there are 6"),
        ({"NUM_TEST": 0}, "no question in its test part.*DATASET.QUESTIONS.NUM_TEST"),
        ({"METRIC": "mean_acc"}, "leave DATASET.METRIC empty"),
        ({"NUM_VAL": 12}, "NUM_VAL 12 leaves nothing to train on"),
        ({"TEMPLATE": "answer: {}"}, "must hold {question} once"),
        ({"TEMPLATE": "{question}"}, "end with {}"),
        ({"SUBSAMPLE_CLASSES": "new"}, "VQAv2 has questions on images, no classes"),
        ({"ROOT": ""}, "VQAv2 needs a data folder"),
        ({"ROOT": "/nowhere"}, "there is no folder /nowhere/vqav2/train2014"),
    ],
)
def test_refused(tmp_path, values, message):
    write(tmp_path)
    with pytest.raises(UserError, match=message.replace("{}", r"\{\}")):
        build_dataset(config(tmp_path, **values))


def test_a_missing_file_is_named(tmp_path):
    cfg = write(tmp_path)
    file(tmp_path, "val2014", "annotations").unlink()
    with pytest.raises(UserError, match=r"there is no file .*v2_mscoco_val2014_annotations"):
        build_dataset(cfg)


def command(monkeypatch, capsys, cfg, out, *words):
    """Exit code, stdout and stderr of ``train.py`` on the miniature."""
    argv = ["train.py", "--trainer", "CoOp", "--backbone", "tiny/random", "--seed", "1", "--root"]
    argv += [cfg.DATASET.ROOT, "--dataset-config-file", str(train.CONFIGS / "datasets/vqav2.yaml")]
    argv += ["--output-dir", str(out), "DATALOADER.NUM_WORKERS", "0", "OPTIM.MAX_EPOCH", "1"]
    argv += ["INPUT.TRANSFORMS", "('normalize',)", "DATASET.QUESTIONS.NUM_TEST", "5", *words]
    monkeypatch.setattr(sys, "argv", argv)
    return train.command(), *capsys.readouterr()


def test_from_the_files_to_the_results(tmp_path, monkeypatch, capsys):
    cfg = write(tmp_path)
    code, out, _ = command(monkeypatch, capsys, cfg, tmp_path / "run", "DATASET.NUM_SHOTS", "6")
    assert code == 0 and "missed by top-1: 2 questions" in out
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    found = [(task["metric"], task["total"]) for task in content["tasks"]]
    assert found == [("VQA accuracy", 5), ("top-1", 5)]
    assert (content["protocol"]["shots"], content["protocol"]["split"]) == (6, "official")


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    cfg = write(tmp_path)
    path = file(tmp_path, "train2014", "annotations")
    path.write_text(file(tmp_path, "train2014", "questions").read_text())
    code, _, err = command(monkeypatch, capsys, cfg, tmp_path / "run")
    assert code == 2 and err.count("\n") == 1 and err.startswith(f"error: {path} is not one of")
    words = ("DATASET.QUESTIONS.CANDIDATES", "0")
    code, _, err = command(monkeypatch, capsys, cfg, tmp_path / "run", *words)
    assert code == 2 and err.startswith("error: DATASET.QUESTIONS.CANDIDATES takes a whole")


def test_the_contact_sheet_sorts_by_answer(tmp_path):
    data = build_dataset(write(tmp_path))
    assert contact_sheet(data, tmp_path / "sheet.png") == (3, 3)
    sheet = Image.open(tmp_path / "sheet.png").convert("RGB")
    fourth = 4 + 3 * (SIDE + GAP) + SIDE // 2, 30 + LABEL + SIDE // 2
    assert max(sheet.getpixel(fourth)) < 60  # each answer has a question on all four photos


keys = ["questions", "annotations", "question_id", "image_id", "question", "answers", "answer"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*keys, "multiple_choice_answer"]), inner)
    ),
    max_leaves=12,
)
near = st.fixed_dictionaries(
    {
        "question_id": st.integers(0, 3) | json_values,
        "image_id": st.integers(0, 3) | json_values,
        "question": st.text(max_size=5) | json_values,
        "multiple_choice_answer": st.text(max_size=5) | json_values,
        "answers": st.lists(st.fixed_dictionaries({"answer": st.text(max_size=5)})) | json_values,
    }
)


@settings(max_examples=150, deadline=None)
@given(
    content=json_values
    | st.lists(near, max_size=3).map(lambda found: {"questions": found, "annotations": found})
)
def test_any_json_is_read_or_named(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    for read, width in ((read_questions, 2), (read_annotations, 3)):
        try:
            found = read(path)
        except UserError as error:
            assert "any.json" in str(error)
        else:
            assert all(len(entry) == width for entry in found.values())
