"""Every configuration key outside cfg.TRAINER, with its default, range and meaning.

The keys of Dassl that a frozen CLIP can use, and those of multi-task runs.
"""

from __future__ import annotations

from .key import Key
from .node import CfgNode

MOST_SEED = 2**63 - 1  # of torch's generators
SAMPLERS = ("RandomSampler", "SequentialSampler")
TASK_SAMPLERS = ("EqualTaskSampler", "TemperatureTaskSampler", "RoundRobinTaskSampler")
TASK_WEIGHTS = ("none", "given", "by_size", "uncertainty", "running_mean")


def get_cfg_default() -> CfgNode:
    """A fresh copy of the default configuration."""
    return CfgNode(
        {
            "OUTPUT_DIR": "./output",  # train.py without --output-dir: a folder of its own below
            "RESUME": "",  # folder of another run to continue; a run always continues its own
            "SEED": Key(-1, least=-1, most=MOST_SEED),  # -1 draws a seed and records it
            "USE_CUDA": True,  # a GPU if there is one
            "VERBOSE": True,
            "LOGGERS": Key(("tensorboard",), choices=("tensorboard", "csv", "wandb")),  # of curves
            "PROTOCOL": "few_shot",  # name of the protocol, as in configs/protocols/
            "INPUT": _input(),
            "DATASET": _dataset(),
            "DATALOADER": _dataloader(),
            "MODEL": _model(),
            "OPTIM": _optim(),
            "TRAIN": _train(),
            "TEST": {
                "EVALUATOR": "ClassificationMT",
                "PER_CLASS_RESULT": False,
                "PER_TASK_RESULT": False,
                "COMPUTE_CMAT": False,
                # per_task: each task's own; overall_acc: plain accuracy
                "METRIC": Key("per_task", choices=("per_task", "overall_acc")),
                "NO_TEST": False,
                # False: beside the results, those without being told the task of each image
                "TASK_GIVEN": True,
                "SPLIT": Key("test", choices=("test", "val")),
                # temperature of the logits, fitted on the validation images (or else the training
                # images), one for the run or one per task; "": none
                "CALIBRATION": Key("", choices=("", "run", "task")),
                "FINAL_MODEL": Key("last_step", choices=("last_step", "best_val")),
            },
            "TRAINER": {"NAME": ""},
            "COMPUTE": {  # speed and memory; results differ by rounding only
                "TF32": False,  # on a GPU, fp32 matrix products with 10 bits of mantissa
                "CHANNELS_LAST": True,  # on a GPU, memory layout of ResNets
                "COMPILE": False,  # torch.compile of the image tower
                # recompute the image tower's activations in the backward pass of methods that learn
                # in it: a third more time, a fraction of the memory
                "IMAGE_CHECKPOINT": False,
                "GRAPHS": True,  # on a GPU, text passes that repeat are replayed as CUDA graphs
                "FUSED_OPTIMIZER": False,  # step all learned tensors in one kernel
                # on a GPU, time the algorithms of each convolution at each new shape, as CoOp does.
                # On an H200 that took 77 of the 83 s of a short run of an RN50 in fp32
                "CUDNN_BENCHMARK": False,
            },
            "FEATURES": _features(),
        }
    )


def _input() -> dict:
    return {
        "SIZE": (),  # height, width; () and "" here and below: the backbone's own
        "INTERPOLATION": Key("", choices=("", "bilinear", "bicubic", "nearest")),
        "RESIZE_MODE": Key("", choices=("", "shortest", "squash")),  # sides of test images to scale
        "TRANSFORMS": (),  # in training; at test time only normalize has an effect
        "NO_TRANSFORM": False,
        "PIXEL_MEAN": Key([], least=0),
        "PIXEL_STD": Key([], above=0),
        "EXIF": Key("ignore", choices=("ignore", "apply")),  # orientation; CLIP itself ignores it
        "CROP_PADDING": Key(4, least=0),
        "RRCROP_SCALE": Key((0.08, 1.0), above=0, most=1),  # share of the image's area
        "COLORJITTER_B": Key(0.4, least=0),
        "COLORJITTER_C": Key(0.4, least=0),
        "COLORJITTER_S": Key(0.4, least=0),
        "COLORJITTER_H": Key(0.1, least=0, most=0.5),
        "COLORJITTER_P": Key(1.0, least=0, most=1),  # probability of the jitter
    }


def _dataset() -> dict:
    return {
        "ROOT": "",
        "NAME": "",
        "SOURCE_DOMAINS": (),
        "TARGET_DOMAINS": (),
        "NUM_SHOTS": Key(
            -1,
            least=-1,
            refused=0,
            about="training images per class, -1 for all; without training: --eval-only",
        ),
        # an image that is drawn for one task is trained on in all tasks that it is labelled in
        "SHARE_SHOTS": False,
        # base: the first half of each task's classes; new: the second half
        "SUBSAMPLE_CLASSES": Key("all", choices=("all", "base", "new")),
        # all, task<i>, task<i>+<j>, not_task<i> (all others), base (first half of the tasks) or new
        "SUBSAMPLE_TASKS": "all",
        # auto: the first of the others whose file exists
        "SPLIT": Key("auto", choices=("auto", "zhou", "dk", "own")),
        # a list: other names of all tasks. For an ablation of the prompts alone: true, synonym,
        # shuffled (each task has another's name), random (words), or a mapping {name: words}
        "TASK_NAMES": Key((), also=(str, dict)),
        "TEMPLATE": "",  # a sentence with {} for all tasks, instead of the dataset's
        "METRIC": Key("", choices=("", "overall_acc", "mean_acc")),  # of all tasks; "": their own
        "MANIFEST": "manifest.csv",  # the table of a Manifest or of TaskColumns, in ROOT
        # of a TaskColumns table, the columns that are not of one class per image; see
        # docs/label_kinds.md: NAME, KIND (multi_label, ordinal), SEPARATOR, CLASSES, THRESHOLD
        "COLUMNS": (),
        "QUESTIONS": {  # of a dataset of questions about images
            "CANDIDATES": Key(3000, least=1),  # the most frequent training answers, as classes
            "NUM_VAL": Key(0, least=0),  # taken from the training questions; 0: the dataset's own
            "NUM_TEST": Key(-1, least=-1),  # the last n test questions; -1: all
        },
        "MEMBERS": (),  # of a suite of one's own: NAME, ROOT, TASK_NAME, TEMPLATE, METRIC, ...
    }


def _dataloader() -> dict:
    return {
        "NUM_WORKERS": Key(4, least=0),
        "OLD_DATA_PATH": "",  # replaced in image paths by NEW_DATA_PATH, if both are set
        "NEW_DATA_PATH": "",
        "TRAIN_X": {
            "SAMPLER": Key("RandomSampler", choices=(*SAMPLERS, *TASK_SAMPLERS)),
            "BATCH_SIZE": Key(32, least=1, most=2**31),
            # of TemperatureTaskSampler: shares n^(1/T) of tasks with n images; 1: by images
            "TEMPERATURE": Key(2.0, least=1),
            # length of an epoch of task samplers only: as many images as there are for training,
            # or so many that each is drawn at least once
            "EPOCH": Key("images", choices=("images", "all")),
        },
        "TEST": {
            "SAMPLER": Key("SequentialSampler", choices=SAMPLERS),
            "BATCH_SIZE": Key(100, least=1, most=2**31),
        },
    }


def _model() -> dict:
    return {
        "INIT_WEIGHTS": "",  # prompter weights to start from
        "INIT_FROM": (),  # finished runs with the same method to start from: their mean
        "BACKBONE": {
            "NAME": "",  # an OpenAI name, arch/tag of open_clip, tiny, or a file
            "ARCH": "",  # architecture of a weight file that does not name its own
        },
        "HEAD": {"NAME": ""},
        # token positions whose activations the text tower stores; beyond that it recomputes
        # them in the backward pass. 0: no limit; auto: a limit only if memory is short
        "TEXT_CHUNK": "auto",
    }


def _optim() -> dict:
    return {
        "NAME": Key("sgd", choices=("sgd", "adam", "adamw")),
        "LR": Key(0.002, least=0),
        "WEIGHT_DECAY": Key(5e-4, least=0),
        "MOMENTUM": Key(0.9, least=0, most=1),
        "SGD_DAMPNING": Key(0.0, least=0, most=1),  # Dassl's spelling
        "SGD_NESTEROV": False,
        "ADAM_BETA1": Key(0.9, least=0, below=1),
        "ADAM_BETA2": Key(0.999, least=0, below=1),
        "ADAM_EPS": Key(1e-8, least=0),  # of adam and adamw
        "LABEL_SMOOTHING": Key(0.0, least=0, most=1),
        # of multi-label tasks; see dassl/data/label_kinds.py
        "MULTI_LABEL_LOSS": Key("binary", choices=("binary", "asymmetric")),
        "POSITIVE_WEIGHT": Key(1.0, above=0),  # factor of the loss of a class that an image has
        # added to the logits before the sigmoid; auto: from the training images
        "LOGIT_BIAS": Key(0.0, choices=("auto",), also=(str,)),
        "ORDINAL_WEIGHT": Key(1.0, least=0),  # of the squared earth mover's distance
        # weight of each task in the loss of a joint training; see dassl/engine/task_weights.py
        "TASK_WEIGHTS": Key("none", choices=TASK_WEIGHTS),
        "TASK_WEIGHT_VALUES": Key((), least=0),  # of given: one number per task
        "TASK_WEIGHT_LR": Key(0.05, above=0),  # of uncertainty's learned values
        # PREC amp: the scale of the loss at the start, halved at every overflow, whose step is
        # skipped; torch's default, as in CoOp's code
        "LOSS_SCALE": Key(65536.0, above=0),
        "LR_SCHEDULER": Key(
            "cosine",
            choices=("cosine", "cosine_squared", "multi_step", "single_step", "constant"),
        ),
        # multi_step: the epochs at which the rate is multiplied by GAMMA; single_step: their period
        "STEPSIZE": Key((-1,), least=-1),
        "GAMMA": Key(0.1, least=0),
        "MAX_EPOCH": Key(50, least=0),
        "WARMUP_EPOCH": Key(-1, least=-1),  # -1: none
        "WARMUP_TYPE": Key("linear", choices=("linear", "constant")),
        "WARMUP_CONS_LR": Key(1e-5, least=0),
        "WARMUP_MIN_LR": Key(1e-5, least=0),
        "WARMUP_RECOUNT": True,  # the schedule starts after the warm-up
    }


def _train() -> dict:
    return {
        "CHECKPOINT_FREQ": Key(0, least=0),  # every n epochs; 0: only the last
        # compare the gradients of the tasks every n batches, in task_relations.json; 0: never
        "TASK_GRADIENTS": Key(0, least=0),
        "PRINT_FREQ": Key(10, least=1),  # a log line every n batches
        # resume.pt is written after an epoch, once n seconds have passed since the last
        # time; a killed run repeats no more than that, or than one epoch. 0: every epoch
        "RESUME_SECONDS": Key(10.0, least=0),
    }


def _features() -> dict:
    """Stored features of the frozen image tower."""
    return {
        "MODE": Key("off", choices=("off", "test", "full")),  # test: only of test images
        "DIR": "",  # "": the user's cache folder
        "VIEWS": Key(0, least=0),  # augmented views stored per training image; 0: one per epoch
        "DTYPE": Key("", choices=("", "fp16")),  # "": as computed
        "LIMIT_GB": Key(50.0, above=0),  # of the folder; the least recently used are deleted first
    }
