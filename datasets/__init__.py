"""Datasets and suites. A file here without a leading underscore is one of them."""

from dassl.data.registry import DATASET_REGISTRY

DATASET_REGISTRY.discover(__name__, __path__)
