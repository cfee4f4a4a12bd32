"""Flickr30k: photos with five captions each. https://shannon.cs.illinois.edu/DenotationGraph/"""

from __future__ import annotations

from dassl.data import DATASET_REGISTRY

from ._core.pairs import PairDataset


@DATASET_REGISTRY.register()
class Flickr30k(PairDataset):
    """Retrieval on Flickr30k in Karpathy's split: 29,000 / 1,014 / 1,000 images."""

    dataset_dir = "flickr30k"
    image_dir = "flickr30k-images"
    json_file = "dataset_flickr30k.json"
    task_name = "photos and captions"
