"""Helpers of the tests of stored image features."""

from prompting.feature_loader import _open_digests, _open_store


def files(tmp_path):
    return sorted((tmp_path / "features").rglob("*.safetensors"))


def forget():
    """Read stores from their folders again, as another process would."""
    _open_store.cache_clear()
    _open_digests.cache_clear()


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def features_of(trainer):
    """Features of the test images by path."""
    return {
        path: feat
        for batch in trainer.test_loader
        for path, feat in zip(batch["impath"], trainer.image_features(batch)["global"], strict=True)
    }
