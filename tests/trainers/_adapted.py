"""What holds for every method that adapts copies of the frozen towers."""

import torch

from clip import load_backbone

ONE = ("DATASET.SUBSAMPLE_TASKS", "task2")
VIT = ("MODEL.BACKBONE.NAME", "tiny-vit/random")


def assert_starts_as_zero_shot_and_clip_stays(trainer, build, batch):
    """Logits of a batch are zero-shot's before training; CLIP's weights are the same after it."""
    zero_shot = build("ZeroshotCLIP", *VIT, *ONE)
    logits = [t.forward(t.image_features(batch)).logits for t in (trainer, zero_shot)]
    torch.testing.assert_close(*logits)
    assert_clip_stays(trainer)


def assert_clip_stays(trainer):
    """Training leaves CLIP's weights as they are."""
    clip = load_backbone("tiny-vit/random")
    before = {key: value.clone() for key, value in clip.state_dict().items()}
    trainer.train()
    for key, value in clip.state_dict().items():
        assert torch.equal(value, before[key]), key
