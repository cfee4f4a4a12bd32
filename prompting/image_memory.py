"""The memory that the images of a training step need, measured on two images and logged."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch.autograd.graph import saved_tensors_hooks

from clip import CLIP, CLIPError
from clip.adapters import layer_norms
from dassl.utils import size_in_words

Encode = Callable[[int, bool], torch.Tensor]  # see image_bytes


def image_bytes(
    encode: Encode, images: int, weights: Iterable[torch.Tensor], blocks: int
) -> tuple[int, int]:
    """About the largest memory of a step in the image tower: as it is, and recomputed.

    That is what waits for the backward pass, and as much again as one block's part of it, for the
    gradients of the block at work; recomputed, also for its activations.

    Args:
        encode: the tower's output for the first n images of a batch; the second argument says
            whether each block's activations are recomputed in the backward pass.
        images: the size of the batch.
        weights: of the tower, frozen and learned, which take no memory in a step.
        blocks: of the tower.
    """
    places = {weight.untyped_storage().data_ptr() for weight in weights}
    sizes = []
    for again in (False, True):
        one, two = (_saved_bytes(encode, count, again, places) for count in (1, 2))
        # weights that autocast copies are saved once, whatever the number of images
        sizes.append(one + (images - 1) * (two - one))
    kept, recomputed = sizes
    return kept + kept // blocks, recomputed + 2 * kept // blocks


def _saved_bytes(encode: Encode, count: int, again: bool, places: set[int]) -> int:
    """Bytes of the tensors that ``encode`` saves for the backward pass, without the weights."""
    found: dict[int, int] = {}

    def save(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in places:
            found[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.enable_grad(), saved_tensors_hooks(save, lambda x: x):
        out = encode(count, again)
    del out  # until here the tensors exist, so no two are at one place
    return sum(found.values())


def count_blocks(clip: CLIP) -> int:
    """Blocks of the image tower; of one that takes no prompt tokens, its layer norms."""
    try:
        return clip.image_layers
    except CLIPError:
        return max(len(layer_norms(clip.visual)), 1)


def announce(kept: int, recomputed: int, what: str, recomputes: bool) -> None:
    """Log the sizes of :func:`image_bytes`.

    Args:
        what: the images of a step, in words.
        recomputes: COMPUTE.IMAGE_CHECKPOINT.
    """
    if recomputes:
        print(f"Images of a step: {what}, about {size_in_words(recomputed)}, recomputed backwards")
    else:
        print(
            f"Images of a step: {what}, about {size_in_words(kept)} of activations "
            f"(COMPUTE.IMAGE_CHECKPOINT True: {size_in_words(recomputed)})"
        )
