"""ProtoNet: class means and both distances."""

import pytest
import torch

from tests.reference import heads as naive
from tests.reference import prompts as naive_clip
from tests.trainers._heads import ONE, drawn, training


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_prototypes(build, close, distance):
    trainer = build("ProtoNet", "TRAINER.PROTONET.DISTANCE", distance, *ONE)
    trainer.fit()
    x, y = training(trainer)
    means = naive.prototypes(x.double(), y.tolist(), 3)
    images = drawn(6)
    expected = naive.nearest(images.double(), means)
    if distance == "cosine":
        expected = naive_clip.logits(images.double(), means, trainer.clip.logit_scale.double())
    close(trainer.forward({"global": images}).logits, expected)


def test_of_one_image_per_class_both_distances_rank_alike(build):
    ranks = []
    for distance in ("euclidean", "cosine"):
        trainer = build("ProtoNet", "TRAINER.PROTONET.DISTANCE", distance, *ONE)
        trainer.model.prompter.set_means(drawn(3, 1), torch.tensor([1, 2, 0]))
        ranks.append(trainer.forward({"global": drawn(50)}).logits.argsort(dim=1))
    assert torch.equal(*ranks)
