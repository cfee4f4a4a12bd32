"""Default values: the keys of Dassl that a frozen CLIP can use, and the keys of multi-task runs."""

from __future__ import annotations

from .node import CfgNode


def get_cfg_default() -> CfgNode:
    """A fresh copy of the default configuration."""
    return CfgNode(
        {
            "OUTPUT_DIR": "./output",
            "RESUME": "",  # folder of another run to go on from; its own folder is always looked at
            "SEED": -1,  # -1 draws a seed and records it
            "USE_CUDA": True,  # a GPU if there is one
            "VERBOSE": True,
            "PROTOCOL": "few_shot",  # name of the protocol, as in configs/protocols/
            "INPUT": _input(),
            "DATASET": _dataset(),
            "DATALOADER": _dataloader(),
            "MODEL": {
                "INIT_WEIGHTS": "",  # prompter weights to start from
                "BACKBONE": {
                    "NAME": "",  # an OpenAI name, arch/tag of open_clip, tiny, or a file
                    "ARCH": "",  # the architecture of a file that does not tell
                },
                "HEAD": {"NAME": ""},
                # token positions whose activations the text tower keeps at once; others it computes
                # again in the backward pass. 0: no limit; auto: a limit only if memory is short
                "TEXT_CHUNK": "auto",
            },
            "OPTIM": _optim(),
            "TRAIN": {
                "CHECKPOINT_FREQ": 0,  # every n epochs; 0: only the last
                "PRINT_FREQ": 10,  # a log line every n batches
            },
            "TEST": {
                "EVALUATOR": "ClassificationMT",
                "PER_CLASS_RESULT": False,
                "PER_TASK_RESULT": False,
                "COMPUTE_CMAT": False,
                "METRIC": "per_task",  # per_task: each task's own; overall_acc: plain accuracy
                "NO_TEST": False,
                "SPLIT": "test",  # test or val
                "FINAL_MODEL": "last_step",  # last_step or best_val
            },
            "TRAINER": {"NAME": ""},
            "COMPUTE": {  # how, not what: nothing here changes more than the last digits
                "TF32": False,  # on a GPU, products of fp32 numbers with 10 bits of mantissa
                "CHANNELS_LAST": True,  # on a GPU, memory layout of ResNets
                "COMPILE": False,  # torch.compile of the image tower
            },
            "FEATURES": _features(),
        }
    )


def _input() -> dict:
    return {
        "SIZE": (),  # height, width; () and "" here and below: the backbone's own
        "INTERPOLATION": "",  # bilinear, bicubic or nearest
        "TRANSFORMS": (),  # in training; at test only normalize is looked at
        "NO_TRANSFORM": False,
        "PIXEL_MEAN": [],
        "PIXEL_STD": [],
        "CROP_PADDING": 4,
        "RRCROP_SCALE": (0.08, 1.0),
        "COLORJITTER_B": 0.4,
        "COLORJITTER_C": 0.4,
        "COLORJITTER_S": 0.4,
        "COLORJITTER_H": 0.1,
        "COLORJITTER_P": 1.0,  # how often the jitter is applied
    }


def _dataset() -> dict:
    return {
        "ROOT": "",
        "NAME": "",
        "SOURCE_DOMAINS": (),
        "TARGET_DOMAINS": (),
        "NUM_SHOTS": -1,  # images per class; -1: all
        "SUBSAMPLE_CLASSES": "all",  # all, base (first half of each task's classes) or new
        "SUBSAMPLE_TASKS": "all",  # all, task<i>, base (first half of the tasks) or new
        "SPLIT": "auto",  # zhou, dk or own; auto: the first of these that is there
        "TASK_NAMES": (),  # words for the prompts of all tasks, instead of the dataset's
        "TEMPLATE": "",  # a sentence with {} for all tasks, instead of the dataset's
        "METRIC": "",  # overall_acc or mean_acc for all tasks, instead of the dataset's
        "MANIFEST": "manifest.csv",  # the table of a Manifest, in ROOT
        "QUESTIONS": {  # of a dataset that asks something about images
            "CANDIDATES": 3000,  # the most frequent training answers, to choose from
            "NUM_VAL": 0,  # held out of the training questions, as the val part; 0: the dataset's
            "NUM_TEST": -1,  # the last so many test questions; -1: all
        },
        "MEMBERS": (),  # of a suite of one's own: NAME, ROOT, TASK_NAME, TEMPLATE, METRIC, ...
    }


def _dataloader() -> dict:
    return {
        "NUM_WORKERS": 4,
        "OLD_DATA_PATH": "",  # replaced in image paths by NEW_DATA_PATH, if both are set
        "NEW_DATA_PATH": "",
        "TRAIN_X": {"SAMPLER": "RandomSampler", "BATCH_SIZE": 32},
        "TEST": {"SAMPLER": "SequentialSampler", "BATCH_SIZE": 100},
    }


def _optim() -> dict:
    return {
        "NAME": "sgd",  # sgd, adam or adamw
        "LR": 0.002,
        "WEIGHT_DECAY": 5e-4,
        "MOMENTUM": 0.9,
        "SGD_DAMPNING": 0.0,  # Dassl's spelling
        "SGD_NESTEROV": False,
        "ADAM_BETA1": 0.9,
        "ADAM_BETA2": 0.999,
        "ADAM_EPS": 1e-8,  # of adam and adamw
        "LABEL_SMOOTHING": 0.0,
        "LR_SCHEDULER": "cosine",  # cosine, multi_step, single_step or constant
        "STEPSIZE": (-1,),  # epochs at which multi_step multiplies by GAMMA; single_step: how often
        "GAMMA": 0.1,
        "MAX_EPOCH": 50,
        "WARMUP_EPOCH": -1,  # -1: none
        "WARMUP_TYPE": "linear",  # linear or constant
        "WARMUP_CONS_LR": 1e-5,
        "WARMUP_MIN_LR": 1e-5,
        "WARMUP_RECOUNT": True,  # the schedule starts after the warm-up
    }


def _features() -> dict:
    """Frozen image features that are kept."""
    return {
        "MODE": "off",  # off, test (test images) or full
        "DIR": "",  # "": the user's cache folder
        "VIEWS": 0,  # augmented views kept per training image; 0: a new one each epoch
        "DTYPE": "",  # fp16: kept in half precision; "": as they are computed
        "LIMIT_GB": 50.0,  # of the folder; the least recently used are deleted first
    }
