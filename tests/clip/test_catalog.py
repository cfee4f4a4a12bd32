"""The table of backbones that train.py --list shows."""

import open_clip
import pytest

from clip import _archs, catalog

SAMPLES = ("ViT-B-32", "ViT-B-16-SigLIP", "coca_ViT-B-32", "PE-Core-T-16-384")


def test_holds_the_supported_architectures_of_this_open_clip():
    listed = {entry.arch: entry for entry in catalog.read_catalog()}
    if set(listed) - set(open_clip.list_models()):
        pytest.skip("the table is of a newer open_clip")
    for arch in open_clip.list_models():
        assert (arch in listed) == (_archs.unsupported_arch(arch) is None), (
            f"{arch}: run `python -m clip.catalog`"
        )
        assert set(open_clip.list_pretrained_tags_by_model(arch)) == set(listed[arch].tags)


@pytest.mark.parametrize("arch", SAMPLES)
def test_entries_are_those_of_the_towers(arch):
    entry = next(entry for entry in catalog.read_catalog() if entry.arch == arch)
    assert entry == catalog.make_entry(arch)


def test_lines():
    lines = catalog.describe_backbones()
    (siglip,) = [line for line in lines if line.startswith("ViT-B-16-SigLIP2/webli ")]
    for cell in ("375 M", "768", "64", "224 x 224", "full length", "timm/ViT-B-16-SigLIP2"):
        assert cell in siglip
    assert any(line.startswith("ViT-B/16 ") and "packed" in line for line in lines)
