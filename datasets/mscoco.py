"""MSCOCO captions: photos of 2014 with five captions each. https://cocodataset.org"""

from __future__ import annotations

from dassl.data import DATASET_REGISTRY

from ._core.pairs import PairDataset


@DATASET_REGISTRY.register()
class MSCOCO(PairDataset):
    """Retrieval on MSCOCO in Karpathy's split: 82,783 / 5,000 / 5,000 images."""

    dataset_dir = "coco"
    image_dir = "."
    json_file = "dataset_coco.json"
    task_name = "photos and captions"
