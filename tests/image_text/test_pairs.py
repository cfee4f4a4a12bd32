"""Pairs of images and texts: their space, their loss and their recalls."""

import pytest
import torch

from dassl.config import get_cfg_default
from dassl.data.tasks import Task, TaskSpace
from dassl.evaluation import build_evaluator
from dassl.utils import UserError
from image_text import FreeText, PairSpace, PairTask
from tests.reference import retrieval as naive

# Images 0, 1 train; 2 val; 3, 4, 5 test. Image 4 has two texts, not side by side.
IMAGE = (0, 1, 2, 4, 3, 4, 5)
SPACE = PairSpace((PairTask("pairs", tuple("abcdefg"), IMAGE, (0, 0, 1, 2, 2, 2)),))


def evaluator(space=SPACE, name="ClassificationMT"):
    cfg = get_cfg_default()
    cfg.TEST.EVALUATOR = name
    return build_evaluator(cfg, space=space)


def test_space():
    assert isinstance(SPACE.classnames, FreeText) and SPACE.classnames == list("abcdefg")
    assert (SPACE.num_classes, SPACE.sizes) == (7, [7])
    assert SPACE.first.tolist() == [0, 1, 2, 4, 3, 6]
    kept = SPACE.scored({"label": torch.tensor([1, 5])})
    assert kept.nonzero()[:, 0].tolist() == [1, 6]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss(smoothing):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 7, generator=generator, dtype=torch.float64).requires_grad_()
    label, task = torch.tensor([5, 0, 3]), torch.zeros(3, dtype=torch.long)
    found = SPACE.cross_entropy(logits, label, task, SPACE.scored({"label": label}), smoothing)
    scores = torch.stack([torch.stack([row[c] for c in (6, 0, 4)]) for row in logits])
    expected = naive.contrast(scores)
    if smoothing:  # the even target costs what all entries cost on average
        uniform = sum(torch.logsumexp(s, 1).mean() - s.mean() for s in (scores, scores.T)) / 2
        expected = (1 - smoothing) * expected + smoothing * uniform
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(loss, logits)[0] for loss in (found, expected)]
    torch.testing.assert_close(*grads)
    assert not grads[0][:, [1, 2, 3, 5]].any()
    assert SPACE.cross_entropy(logits.half(), label, task).dtype == torch.float32


def test_recall_by_hand():
    """Three images, four texts: which R@1 and R@5 they give is counted by eye."""
    scores = torch.full((3, 7), 99.0)  # the texts of other parts would win everything
    scores[:, 3:] = torch.tensor(
        [  # texts of images 4, 3, 4, 5
            [0.1, 0.9, 0.2, 0.3],  # image 3: its text is the best
            [0.4, 0.8, 0.5, 0.1],  # image 4: another text is better than both of its own
            [0.2, 0.3, 0.6, 0.6],  # image 5: a tie with a wrong text
        ]
    )
    found = evaluator()
    found.process(scores[:2], torch.tensor([3, 4]))
    found.process(scores[2:], torch.tensor([5]))
    results = found.evaluate()
    assert results["image to text R@1"] == pytest.approx(100 / 3)
    # text 0 (image 4) yes; text 1 (image 3) yes; text 2 (image 4: 0.5 < 0.6) no; text 3 yes
    assert results["text to image R@1"] == pytest.approx(75)
    assert results["image to text R@5"] == results["text to image R@10"] == 100
    assert results["overall_metric"] == pytest.approx((100 / 3 + 75 + 400) / 6)
    assert found.suite["value"] == results["overall_metric"]
    first = found.tasks[0]
    assert (first["name"], first["correct"], first["total"]) == ("image to text R@1", 1, 3)


@pytest.mark.parametrize("batch", [1, 4, 23])
@pytest.mark.parametrize("levels", [3, 1000])
def test_recall_of_many(batch, levels):
    """Against a loop over pairs, with many ties and with few, in batches of any size."""
    generator = torch.Generator().manual_seed(levels)
    images, texts = 23, 60
    own = [c % images for c in range(texts)]
    space = PairSpace((PairTask("", ("x",) * texts, tuple(own), (2,) * images),))
    scores = torch.randint(levels, (images, texts), generator=generator).float()
    found = evaluator(space)
    for rows in torch.arange(images).split(batch):
        found.process(scores[rows], rows)
    results = found.evaluate()
    for k in (1, 5, 10):
        expected = naive.recalls(scores.tolist(), own, k)
        assert results[f"image to text R@{k}"] == pytest.approx(expected[0])
        assert results[f"text to image R@{k}"] == pytest.approx(expected[1])


def test_equal_scores_find_nothing():
    found = evaluator()
    found.process(torch.zeros(3, 7), torch.tensor([3, 4, 5]))
    assert found.evaluate()["image to text R@1"] == found.evaluate()["text to image R@1"] == 0


def test_scores_that_are_no_numbers_find_nothing():
    found = evaluator()
    found.process(torch.full((3, 7), torch.nan), torch.tensor([3, 4, 5]))
    results = found.evaluate()
    assert results["image to text R@1"] == results["text to image R@1"] == 0


def test_reset_forgets():
    found = evaluator()
    found.process(torch.rand(3, 7), torch.tensor([3, 4, 5]))
    found.reset()
    with pytest.raises(UserError, match="nothing to evaluate"):
        found.evaluate()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (((), (), ()), "needs at least one text"),
        ((("a", "b"), (0,), (0, 0)), "2 texts of 1 images"),
        ((("a",), (0,), (0, 0)), "images without text"),
        ((("a", "b"), (0, 1), (0,)), "texts without image"),
        ((("a", "b"), (0, 0), (0,)), "a training image with several texts"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(UserError, match=message):
        PairTask("t", *fields)


def test_one_collection_at_a_time():
    with pytest.raises(UserError, match="images and texts cannot be combined"):
        PairSpace(SPACE.tasks * 2)


def test_recall_needs_pairs():
    space = TaskSpace((Task("t", ("a", "b")),))
    with pytest.raises(UserError, match="Retrieval is for pairs"):
        evaluator(space, "Retrieval")
