"""Zero-shot CLIP by hand-written templates, and CoOp that starts with the same words."""

import pytest
import torch

from tests.conftest import TASKS
from tests.reference import prompts as naive
from tests.trainers._methods import E

TASK0 = ("DATASET.SUBSAMPLE_TASKS", "task0")


def test_zero_shot_is_clip_with_the_templates(build):
    trainer = build("ZeroshotCLIP")
    text = trainer.clip.text_tower
    phrases = [
        task.templates[0].format(name.replace("_", " "))
        for task in TASKS
        for name in task.classnames
    ]
    assert phrases[1] == "a grass green picture."
    images = torch.randn(4, E)
    scores = naive.logits(images, text.encode_text(phrases), trainer.clip.logit_scale)
    torch.testing.assert_close(trainer.forward({"global": images}).logits, scores)
    assert not trainer.optimizers()


@pytest.mark.parametrize("own", [True, False])
def test_ensemble_averages_normalised_features(build, own):
    trainer = build("ZeroshotCLIP2", *TASK0, "TRAINER.ZEROSHOT2.OWN_TEMPLATE", own)
    text, rows = trainer.clip.text_tower, []
    general = ("itap of a {}.", "a bad photo of the {}.", "a origami {}.")
    general += ("a photo of the large {}.", "a {} in a video game.", "art of the {}.")
    for name in ("red", "grass green", "deep blue"):
        templates = (*general, "a photo of the small {}.")
        templates += ("a {} picture.",) if own else ()
        found = text.encode_text([template.format(name) for template in templates])
        rows.append(sum(row / row.norm() for row in found))
    images = torch.randn(4, E)
    scores = naive.logits(images, rows, trainer.clip.logit_scale)
    torch.testing.assert_close(trainer.forward({"global": images}).logits, scores)


def test_the_words_a_photo_of_a_are_zero_shot(build):
    trainer = build("CoOp", "TRAINER.COOP.CTX_INIT", "a photo of a", *TASK0)
    phrases = [f"a photo of a {name.replace('_', ' ')}." for name in TASKS[0].classnames]
    images, text = torch.randn(4, E), trainer.clip.text_tower
    scores = naive.logits(images, text.encode_text(phrases), trainer.clip.logit_scale)
    torch.testing.assert_close(trainer.forward({"global": images}).logits, scores)
