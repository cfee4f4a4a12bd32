"""Every YAML file merges, says how it is used, and names a registered class."""

import re
from pathlib import Path

import pytest

import train
from clip import list_backbones
from dassl.config.node import read_yaml
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY
from sweeps.plan import read_sweep

CONFIGS = Path(train.CONFIGS)
TRAINERS = sorted((CONFIGS / "trainers").rglob("*.yaml"))
DATASETS = sorted((CONFIGS / "datasets").glob("*.yaml"))
PROTOCOLS = sorted((CONFIGS / "protocols").glob("*.yaml"))
SWEEPS = sorted((CONFIGS / "sweeps").glob("*.yaml"))
BASES = sorted((CONFIGS / "_base_").glob("*.yaml"))
# Upstream's folders hold these files; the folder's name is not always the trainer's.
UPSTREAM = {"MTCoOp": "_ep50", "MTCoOpHard": "_ep50", "CoOp": "_ep50", "ZeroShot": "", "LP": "_val"}
BACKBONES = {
    "rn50": "RN50",
    "rn101": "RN101",
    "vit_b16": "ViT-B/16",
    "vit_b32": "ViT-B/32",
}
NEWER = {  # towers after CLIP's own, with presets for CoOp, CoOp-MT and SoftCPT
    "siglip_b16": "ViT-B-16-SigLIP/webli",
    "siglip2_b16": "ViT-B-16-SigLIP2/webli",
    "siglip2_so400m_378": "ViT-SO400M-14-SigLIP2-378/webli",
    "pe_l14_336": "PE-Core-L-14-336/meta",
    "metaclip2_h14": "ViT-H-14-worldwide/metaclip2_worldwide",
    "dfn_h14": "ViT-H-14-quickgelu/dfn5b",
    "eva02_l14": "EVA02-L-14/merged2b_s4b_b131k",
    "mobileclip2_s0": "MobileCLIP2-S0/dfndr2b",
    "biomedclip": "hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
}
TRAINER_OF = {"ZeroShot": "ZeroshotCLIP", "LP": "LinearProbe"}


def ids(paths):
    return [f"{path.parent.name}/{path.stem}" for path in paths]


def config(*words):
    return train.setup_cfg(train.parse_args([*map(str, words)]))


def test_no_yaml_is_left_out():
    groups = [TRAINERS, DATASETS, PROTOCOLS, SWEEPS, BASES]
    assert sum(map(len, groups)) == len(list(CONFIGS.rglob("*.yaml")))
    assert len(TRAINERS) >= 25 and len(PROTOCOLS) >= 3 and DATASETS and SWEEPS and BASES


def test_upstreams_presets_are_there():
    names = {f"{path.parent.name}/{path.stem}" for path in TRAINERS}
    wanted = {
        f"{folder}/{backbone}{suffix}"
        for folder, suffix in UPSTREAM.items()
        for backbone in BACKBONES
    }
    assert len(wanted) == 20
    assert not wanted - names


def test_newer_towers_have_presets():
    names = {f"{path.parent.name}/{path.stem}" for path in TRAINERS}
    folders = ("CoOp", "MTCoOpHard", "MTCoOp")
    assert {f"{folder}/{stem}_ep50" for folder in folders for stem in NEWER} <= names


@pytest.mark.parametrize("path", TRAINERS, ids=ids(TRAINERS))
def test_trainer_presets(path):
    name = TRAINER_OF.get(path.parent.name, path.parent.name)
    cfg = config("--config-file", path, "--trainer", name if name in TRAINER_REGISTRY else "CoOp")
    backbone = cfg.MODEL.BACKBONE.NAME
    assert backbone in list_backbones() or backbone.startswith("hf-hub:")
    known = {**BACKBONES, **NEWER, "tiny_vit": "tiny-vit"}
    start = path.stem.removeprefix("summary_")
    expected = next((n for stem, n in known.items() if start.startswith(stem)), "tiny")
    assert backbone == expected
    if epochs := re.search(r"_ep(\d+)", path.stem):
        named = path.read_text(encoding="utf-8").splitlines()[1].startswith("# (the published name")
        assert int(epochs[1]) == cfg.OPTIM.MAX_EPOCH or named


@pytest.mark.parametrize("path", DATASETS, ids=ids(DATASETS))
def test_dataset_presets(path):
    cfg = config("--trainer", "CoOp", "--dataset-config-file", path)
    assert cfg.DATASET.NAME in DATASET_REGISTRY


def test_every_dataset_has_a_preset():
    named = {config("--trainer", "CoOp", "--dataset-config-file", p).DATASET.NAME for p in DATASETS}
    assert named >= set(DATASET_REGISTRY.registered_names())


@pytest.mark.parametrize("path", PROTOCOLS, ids=ids(PROTOCOLS))
def test_protocols(path):
    cfg = config("--trainer", "CoOp", "--protocol", path.stem)
    assert path.stem == cfg.PROTOCOL


@pytest.mark.parametrize("path", SWEEPS, ids=ids(SWEEPS))
def test_sweeps(path):
    runs = read_sweep(path, configs=CONFIGS, methods="all").runs
    assert runs
    for run in runs:
        assert config(*run.argv).TRAINER.NAME in TRAINER_REGISTRY


@pytest.mark.parametrize("path", [*TRAINERS, *SWEEPS], ids=ids([*TRAINERS, *SWEEPS]))
def test_presets_start_with_a_comment(path):
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_the_schedule_of_the_presets():
    cfg = config("--trainer", "MTCoOp", "--config-file", CONFIGS / "trainers/MTCoOp/rn50_ep50.yaml")
    optim = cfg.OPTIM
    assert (optim.NAME, optim.LR, optim.MAX_EPOCH, optim.LR_SCHEDULER) == (
        "sgd",
        0.002,
        50,
        "cosine",
    )
    assert (optim.MOMENTUM, optim.WEIGHT_DECAY, optim.SGD_NESTEROV) == (0.9, 5e-4, False)
    assert (optim.WARMUP_EPOCH, optim.WARMUP_TYPE, optim.WARMUP_CONS_LR) == (1, "constant", 1e-5)
    assert cfg.DATALOADER.TRAIN_X.BATCH_SIZE == 32 and cfg.DATALOADER.TEST.BATCH_SIZE == 100
    assert tuple(cfg.INPUT.SIZE) == (224, 224) and cfg.INPUT.INTERPOLATION == "bicubic"
    assert list(cfg.INPUT.TRANSFORMS) == ["random_resized_crop", "random_flip", "normalize"]
    assert list(cfg.INPUT.PIXEL_MEAN) == [0.48145466, 0.4578275, 0.40821073]
    assert list(cfg.INPUT.PIXEL_STD) == [0.26862954, 0.26130258, 0.27577711]


def test_the_recipe_of_the_summaries():
    path = CONFIGS / "trainers/MTCoOp/summary_vit_b32.yaml"
    cfg = config("--trainer", "MTCoOp", "--config-file", path)
    optim, jitter = cfg.OPTIM, [cfg.INPUT[f"COLORJITTER_{letter}"] for letter in "BCSHP"]
    assert (optim.NAME, optim.LR, optim.WEIGHT_DECAY, optim.MAX_EPOCH) == ("adam", 1e-4, 1e-5, 100)
    assert optim.LABEL_SMOOTHING == 0.1 and jitter == [0.4, 0.4, 0.4, 0.1, 0.5]
    assert cfg.TRAINER.MTCOOP.PG_TYPE == "transformer"


def test_bases_are_plain_mappings():
    for path in BASES:
        assert "_BASE_" not in read_yaml(path)
