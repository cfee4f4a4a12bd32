"""The fixtures of tests on methods, and of those on stored image features."""

import shutil

import pytest

from dassl.data.datasets import DATASET_REGISTRY
from tests._method_fixtures import *  # noqa: F403
from tests.conftest import toy_class


@pytest.fixture
def store(tmp_path):
    """The options of a feature store of this test."""
    return ("FEATURES.DIR", str(tmp_path / "features"))


@pytest.fixture
def own_toy(toy_folder, tmp_path):
    """A toy suite "OwnToy" whose images may be changed."""
    folder = tmp_path / "images"
    shutil.copytree(toy_folder, folder)
    DATASET_REGISTRY.register()(toy_class("OwnToy", folder))
    yield folder
    DATASET_REGISTRY._classes.pop("OwnToy")
