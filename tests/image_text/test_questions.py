"""Questions on images: their space, their loss and their accuracies."""

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.data.tasks import Task, TaskSpace
from dassl.evaluation import build_evaluator
from dassl.utils import UserError
from image_text import QuestionSpace, QuestionTask
from image_text.answers import vqa_accuracy
from tests.reference import questions as naive

FIELDS = {
    "name": "toys",
    "answers": ("red", "blue", "two"),
    "questions": ("what colour?", "how many?"),
    "question": (0, 1, 0, 0),
    "target": (1, 2, -1, 0),
    "votes": ({1: 10}, {2: 2, 0: 1}, {0: 3}, {}),
    "people": (10, 10, 10, 10),
}
SPACE = QuestionSpace((QuestionTask(**FIELDS),))


def evaluator(space=SPACE, name="ClassificationMT"):
    cfg = get_cfg_default()
    cfg.TEST.EVALUATOR = name
    return build_evaluator(cfg, space=space)


def test_space():
    assert (SPACE.num_classes, SPACE.classnames) == (3, ["red", "blue", "two"])
    assert SPACE.question_ids(torch.tensor([1, 3])).tolist() == [1, 0]
    assert SPACE.scored({"label": torch.tensor([1])}) is None
    assert SPACE.tasks[0].before("how many?") == "question: how many? answer:"
    assert TaskSpace((Task("t", ("a",)),)).question_ids(torch.tensor([0])) is None


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    label = torch.tensor([3, 0, 1])
    found = SPACE.cross_entropy(logits, label, label * 0, None, smoothing)
    expected = naive.loss(logits, [0, 1, 2])
    if smoothing:
        uniform = (torch.logsumexp(logits, 1) - logits.mean(1)).mean()
        expected = (1 - smoothing) * expected + smoothing * uniform
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*grads)


def test_accuracy_of_an_answer_by_hand():
    """Of ten people 0, 1, 2, 3, 4 or more gave it."""
    found = [vqa_accuracy(same, 10) for same in (0, 1, 2, 3, 4, 10)]
    assert found == pytest.approx([0, 0.3, 0.6, 0.9, 1, 1])


@pytest.mark.parametrize("people", [1, 2, 5, 10])
def test_accuracy_of_an_answer(people):
    for same in range(people + 1):
        answers = ["yes"] * same + ["no"] * (people - same)
        assert vqa_accuracy(same, people) == pytest.approx(naive.vqa_accuracy("yes", answers))


def test_accuracies_by_hand(capsys):
    logits = torch.tensor(
        [
            [0.0, 2.0, 1.0],  # blue: all ten
            [0.0, 0.0, 3.0],  # two: two of ten, and the most frequent
            [5.0, 4.0, 4.0],  # red: three of ten, where the most frequent is no candidate
            [0.0, 1.0, 0.0],  # blue: nobody
        ]
    )
    found = evaluator()
    found.process(logits[:1], torch.tensor([0]))
    found.process(logits[1:], torch.tensor([1, 2, 3]))
    results = found.evaluate()
    assert results["overall_metric"] == results["VQA accuracy"] == pytest.approx(62.5)
    assert results["top-1"] == 50
    assert found.suite == {"metric": "VQA accuracy", "value": pytest.approx(62.5), "groups": {}}
    about = [(task["metric"], task["correct"], task["total"]) for task in found.tasks]
    assert about == [("VQA accuracy", 2.5, 4), ("top-1", 2, 4)]
    out = capsys.readouterr().out
    assert "* total: 4\n* overall_metric: 62.50%" in out
    assert "missed by top-1: 1 question\n" in out


def test_reset_forgets():
    found = evaluator()
    found.process(torch.rand(2, 3), torch.tensor([0, 1]))
    found.reset()
    with pytest.raises(UserError, match="nothing to evaluate"):
        found.evaluate()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"answers": ()}, "at least one answer"),
        ({"answers": ("red", "red", "two")}, "no two alike"),
        ({"people": (10,)}, "columns of unlike lengths"),
        ({"template": "{question}?"}, "must hold {question} once and end with {}"),
        ({"template": "what is it? {}"}, "must hold {question} once"),
        ({"template": "{} answers {question}"}, "must hold {question} once"),
        ({"template": "{question} {} it is"}, "end with {}"),
        ({"template": "{question} {question} {}"}, "must hold {question} once"),
        ({"template": "{question} {x} {}"}, "got '{question} {x} {}'"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(UserError, match=message.replace("{}", r"\{\}")):
        QuestionTask(**{**FIELDS, **fields})


def test_one_collection_at_a_time():
    with pytest.raises(UserError, match="questions on images cannot be combined"):
        QuestionSpace(SPACE.tasks * 2)


def test_answers_need_questions():
    space = TaskSpace((Task("t", ("a", "b")),))
    with pytest.raises(UserError, match="Answers is for questions on images"):
        evaluator(space, "Answers")
