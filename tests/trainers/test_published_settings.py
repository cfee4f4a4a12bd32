"""The presets have the settings that their methods were published with."""

from pathlib import Path

import pytest

import train

TRAINERS = Path(train.CONFIGS) / "trainers"
TRAINER_OF = {"LP": "LinearProbe", "ZeroShot": "ZeroshotCLIP"}
CROPS = ["random_resized_crop", "random_flip", "normalize"]
COMMON = {  # of CoOp and the methods that follow it
    "OPTIM.NAME": "sgd",
    "OPTIM.LR": 0.002,
    "OPTIM.MOMENTUM": 0.9,
    "OPTIM.SGD_DAMPNING": 0,
    "OPTIM.SGD_NESTEROV": False,
    "OPTIM.WEIGHT_DECAY": 5e-4,
    "OPTIM.LABEL_SMOOTHING": 0,
    "OPTIM.LR_SCHEDULER": "cosine",
    "OPTIM.WARMUP_EPOCH": 1,
    "OPTIM.WARMUP_TYPE": "constant",
    "OPTIM.WARMUP_CONS_LR": 1e-5,
    "OPTIM.WARMUP_RECOUNT": True,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 32,
    "DATALOADER.TRAIN_X.SAMPLER": "RandomSampler",
    "DATALOADER.TEST.BATCH_SIZE": 100,
    "INPUT.TRANSFORMS": CROPS,
    "INPUT.RRCROP_SCALE": [0.08, 1.0],
    "INPUT.INTERPOLATION": "bicubic",
    "TEST.FINAL_MODEL": "last_step",
}
EPOCHS, BATCH, RATE = "OPTIM.MAX_EPOCH", "DATALOADER.TRAIN_X.BATCH_SIZE", "OPTIM.LR"
WORDS = {"N_CTX": 4, "CTX_INIT": "a photo of a"}
DEEP = {BATCH: 4, "CTX_INIT": "a photo of a"}
SOFTCPT = {EPOCHS: 50, "N_CTX": 16, "TASK_N_CTX": 4, "CLASS_N_CTX": 4, "PG_TYPE": "lin"}
SOFTCPT |= {"CSC": False, "TASK_CSC": False, "UPSTREAM_STEPS": False}
COOP = {"N_CTX": 16, "CTX_INIT": "", "CSC": False, "CLASS_TOKEN_POSITION": "end"}
PROGRAD = {"N_CTX": 16, "CTX_INIT": True, "LAMBDA": 1.0, "T": 1.0}
PLOT = {"N": 4, "N_CTX": 16, "EPS": 0.1, "MAX_ITER": 100, "THRESH": 0.01, "GLOBAL_TERM": False}
PLOT |= {BATCH: 128, "DATALOADER.TEST.BATCH_SIZE": 200}
KGCOOP = {**WORDS, "W": 8.0, EPOCHS: 100, BATCH: 128}
MAPLE = {**DEEP, "N_CTX": 2}
IVLP = {**DEEP, EPOCHS: 5, "PROMPT_DEPTH_TEXT": 12}
PROMPTSRC = {**DEEP, RATE: 0.0025, "N_CTX_TEXT": 4, "N_CTX_VISION": 4, "NUM_TEMPLATES": 60}
PROMPTSRC |= {"TEXT_LOSS_WEIGHT": 25, "IMAGE_LOSS_WEIGHT": 10, "LOGITS_LOSS_WEIGHT": 1}
ADAM = {"OPTIM.NAME": "adam", "OPTIM.ADAM_BETA1": 0.9, "OPTIM.ADAM_BETA2": 0.999}
ADAMW = {**ADAM, "OPTIM.NAME": "adamw", "OPTIM.WEIGHT_DECAY": 0.01, "OPTIM.WARMUP_EPOCH": -1}
STEPS = {**ADAMW, RATE: 2e-4, "OPTIM.ADAM_EPS": 1e-8, "MIN_LR": 1e-6, "PREC": "amp"}
STEPS |= {"TEMPLATE": "a photo of a {}."}
DEPT = {"WEIGHT": 0.7, "RATE_FACTOR": 6.5, RATE: 0.0035, BATCH: 4, EPOCHS: 10}
# Settings of the optimizer that a method without SGD has not.
NO_SGD = dict.fromkeys((key for key in COMMON if key.startswith("OPTIM.")), ...)
TIP = {"VIEWS": 10, "SEARCH": True, "BETA_STEPS": 200, "ALPHA_STEPS": 20}
TIP |= {"INPUT.RRCROP_SCALE": [0.5, 1.0], "BETA_MAX": 7, "ALPHA_MAX": 3}
PUBLISHED = {
    "CoOp/rn50_ep50": {**COOP, EPOCHS: 50},
    "CoOp/rn50_ep100": {**COOP, EPOCHS: 100},
    "CoOp/rn50": {**COOP, EPOCHS: 200},
    "CoOp/rn50_ep50_csc": {**COOP, EPOCHS: 50, "CSC": True},
    "CoOp/vit_b16_ctxv1": {**COOP, EPOCHS: 200, "CTX_INIT": "a photo of a"},
    "CoOp/vit_b16_ep50_ctxv1": {**COOP, EPOCHS: 50, "CTX_INIT": "a photo of a"},
    "CoCoOp/vit_b16_c4_ep10_batch1_ctxv1": {**WORDS, EPOCHS: 10, BATCH: 1},
    "ProGrad/rn50_ep50": {**PROGRAD, EPOCHS: 50},
    "ProGrad/rn50_ep100": {**PROGRAD, EPOCHS: 100},
    "ProGrad/rn50": {**PROGRAD, EPOCHS: 200},
    "KgCoOp/vit_b16_ep100_ctxv1": KGCOOP,
    "KgCoOp/rn50_ep100_ctxv1": KGCOOP,
    "PLOT/rn50_ep50": {**PLOT, EPOCHS: 50},
    "PLOT/rn50_ep100": {**PLOT, EPOCHS: 100},
    "PLOT/rn50": {**PLOT, EPOCHS: 200},
    "MTCoOp/rn50_ep50": SOFTCPT,
    "MTCoOp/vit_b16_ep50": SOFTCPT,
    "MTCoOpHard/rn50_ep50": {EPOCHS: 50, "N_CTX": 16, "CSC": False, "TSC": False},
    "VPT/vit_b16_c2_ep5_batch4_4": {
        EPOCHS: 5,
        BATCH: 4,
        RATE: 0.0025,
        "PREC": "fp32",
        "N_CTX_VISION": 8,
        "PROMPT_DEPTH_VISION": 12,
        "TEMPLATE": "a photo of a {}.",
    },
    "IVLP/vit_b16_c2_ep5_batch4_2+2ctx": {
        **IVLP,
        RATE: 0.0035,
        "N_CTX_TEXT": 2,
        "N_CTX_VISION": 2,
        "PROMPT_DEPTH_VISION": 12,
    },
    "IVLP/vit_b16_c2_ep5_batch4_4ctx_language_only": {
        **IVLP,
        RATE: 0.0025,
        "N_CTX_TEXT": 4,
        "PROMPT_DEPTH_VISION": 0,
    },
    "MaPLe/vit_b16_c2_ep5_batch4_2ctx": {**MAPLE, EPOCHS: 5, RATE: 0.0035, "PROMPT_DEPTH": 9},
    "MaPLe/vit_b16_c2_ep5_batch4_2ctx_cross_datasets": {
        **MAPLE,
        EPOCHS: 2,
        RATE: 0.0026,
        "PROMPT_DEPTH": 3,
    },
    "PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx": {
        **PROMPTSRC,
        EPOCHS: 20,
        "GPA_MEAN": 15,
        "GPA_STD": 1,
        "PROMPT_DEPTH_TEXT": 9,
        "PROMPT_DEPTH_VISION": 9,
    },
    "PromptSRC/vit_b16_c2_ep20_batch4_4+4ctx_cross_datasets": {
        **PROMPTSRC,
        EPOCHS: 20,
        "GPA_MEAN": 6,
        "GPA_STD": 10,
        "PROMPT_DEPTH_TEXT": 3,
        "PROMPT_DEPTH_VISION": 3,
    },
    "PromptSRC/vit_b16_c2_ep50_batch4_4+4ctx_few_shot": {
        **PROMPTSRC,
        EPOCHS: 50,
        "GPA_MEAN": 30,
        "GPA_STD": 30,
        "PROMPT_DEPTH_TEXT": 9,
        "PROMPT_DEPTH_VISION": 9,
    },
    "TCP/vit_b16_ep50": {
        **ADAM,
        "OPTIM.ADAM_EPS": 1e-3,
        EPOCHS: 50,
        "N_CTX": 4,
        "CTX_INIT": "",
        "W": 8.0,
        "LAYER": 8,
        "REDUCTION": 4,
    },
    "DePT/vit_b16_ep10_coop": {**DEPT, "METHOD": "CoOp", "COOP.N_CTX": 4},
    "DePT/vit_b16_ep10_cocoop": {**DEPT, "METHOD": "CoCoOp", "COCOOP.N_CTX": 4},
    "DePT/vit_b16_ep10_kgcoop": {**DEPT, "METHOD": "KgCoOp", "KGCOOP.W": 8.0},
    "DePT/vit_b16_ep10_maple": {**DEPT, "METHOD": "MaPLe", "MAPLE.PROMPT_DEPTH": 9},
    "DePT/vit_b16_ep10_promptsrc": {**DEPT, "METHOD": "PromptSRC", "PROMPTSRC.N_CTX_TEXT": 4},
    "TaskRes/rn50_ep100": {**ADAM, EPOCHS: 100, BATCH: 256, "ALPHA": 0.5},
    "TaskRes/rn50_ep200": {**ADAM, EPOCHS: 200, BATCH: 256, "ALPHA": 0.5},
    "TaskRes/vit_b16_ep100": {**ADAM, EPOCHS: 100, BATCH: 256, RATE: 2e-4},
    "TaskRes/vit_b16_ep200": {**ADAM, EPOCHS: 200, BATCH: 256, RATE: 2e-4},
    "CLIPAdapter/rn50_ep50": {"REDUCTION": 4, "RATIO": 0.2, "PREC": "fp32"},
    "CLIPLoRA/vit_b16": {
        **NO_SGD,
        **STEPS,
        "ITERATIONS": 500,
        "R": 2,
        "ALPHA": 1,
        "DROPOUT": 0.25,
        "PARTS": ["q", "k", "v"],
        "ENCODER": "both",
    },
    "MMA/vit_b16_ep5_batch16": {
        RATE: 0.0015,
        BATCH: 16,
        EPOCHS: 5,
        "OPTIM.WARMUP_EPOCH": -1,
        "PREC": "amp",
        "START": 5,
        "END": 12,
        "DIM": 32,
        "SCALE": 0.001,
        "TEMPLATE": "a photo of a {}.",
    },
    "TwoStage/vit_b16": {**NO_SGD, **STEPS, "ITERATIONS": 300, "FIRST_STAGE": 0.6},
    "LP/rn50_val": {**NO_SGD, BATCH: 16, "DATALOADER.TEST.BATCH_SIZE": 16, "MAX_ITER": 1000},
    "LPPlusPlus/rn50": {
        **NO_SGD,
        "ITERATIONS": 300,
        "VIEWS": 1,
        "START": "sum",
        "INPUT.RRCROP_SCALE": [0.5, 1.0],
    },
    "TipAdapter/rn50": {**NO_SGD, **TIP},
    "TipAdapter/rn50_f": {
        **NO_SGD,
        **TIP,
        **ADAMW,
        RATE: 1e-3,
        "OPTIM.ADAM_EPS": 1e-4,
        EPOCHS: 20,
        BATCH: 256,
        "OPTIM.LR_SCHEDULER": "cosine",
        "FINETUNE": True,
    },
}


def value_of(cfg, key: str):
    """The value of a key of the configuration, or of one of the method's own node."""
    node = cfg
    for name in key.split("."):
        node = node[name]
    return list(node) if isinstance(node, (tuple, list)) else node


@pytest.mark.parametrize("preset", PUBLISHED)
def test_settings(preset):
    folder = preset.partition("/")[0]
    trainer = TRAINER_OF.get(folder, folder)
    words = ("--trainer", trainer, "--config-file", str(TRAINERS / f"{preset}.yaml"))
    cfg = train.setup_cfg(train.parse_args([*words]))
    own = "DEPT" if trainer == "DePT" else own_node(cfg)
    expected = {k: v for k, v in {**COMMON, **PUBLISHED[preset]}.items() if v is not ...}
    found = {key: value_of(cfg, full_key(key, cfg, own)) for key in expected}
    assert found == expected


def own_node(cfg) -> str:
    (node,) = (name for name in cfg.TRAINER if name != "NAME")
    return node


def full_key(key: str, cfg, own: str) -> str:
    if key.split(".")[0] in cfg:
        return key
    return f"TRAINER.{key}" if "." in key else f"TRAINER.{own}.{key}"
