"""The registry of datasets; importing it does not import torch."""

from dassl.utils.registry import Registry

DATASET_REGISTRY = Registry("dataset")
