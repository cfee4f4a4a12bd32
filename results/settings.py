"""The settings of a run that all seeds of one experiment share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from dassl.utils import UserError, flat

from .logs import Log
from .schema import NEWER, NOT_HASHED, RecordReader

CONFIG = "config.yaml"  # in a run directory: the merged configuration
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Keys of the protocol that are columns of a table, or that differ between the seeds of a row.
# split_hash is in older records only; hashes.data has its value.
PROTOCOL_NOT_COMPARED = ("method", "suite", "shots", "seed", "split_hash")
# Keys of config.yaml that the protocol holds under other names, or that only change the log.
CONFIG_NOT_COMPARED = (
    "SEED",
    "PROTOCOL",
    "DATASET.NAME",
    "DATASET.NUM_SHOTS",
    "DATASET.SUBSAMPLE_CLASSES",
    "DATASET.SUBSAMPLE_TASKS",
    "DATASET.SPLIT",
    "MODEL.BACKBONE.NAME",
    "TEST.FINAL_MODEL",
    "TEST.METRIC",
    "TEST.PER_CLASS_RESULT",
    "TEST.PER_TASK_RESULT",
    "TEST.COMPUTE_CMAT",
)
# Keys that the record's ``balance`` holds in fewer words.
SAMPLER = "DATALOADER.TRAIN_X.SAMPLER"
BALANCE_KEYS = (
    SAMPLER,
    "DATALOADER.TRAIN_X.TEMPERATURE",
    "DATALOADER.TRAIN_X.EPOCH",
    "OPTIM.TASK_WEIGHTS",
    "OPTIM.TASK_WEIGHT_VALUES",
    "OPTIM.TASK_WEIGHT_LR",
)
DEFAULT_RATE = NEWER["OPTIM.TASK_WEIGHT_LR"]


def settings_of_log(log: Log) -> dict[str, str]:
    """Every setting in the Config of a log that seeds of one experiment share."""
    skipped = (*NOT_HASHED, *CONFIG_NOT_COMPARED)
    config = {
        key: value
        for key, value in log.settings.items()
        if key.split(".")[0].isupper() and value and key not in skipped
    }
    return log.options() | {k: v for k, v in config.items() if not k.startswith("TRAINER.")}


def settings_of_record(folder: Path, reader: RecordReader) -> dict[str, str]:
    """Everything that seeds of one experiment share: the protocol, the weights, the config."""
    protocol = reader.section("protocol")
    settings = {k: v for k, v in protocol.items() if k not in PROTOCOL_NOT_COMPARED}
    options = settings.pop("options", None)
    if isinstance(options, dict):
        settings |= options
    weights = reader.section("hashes").get("weights")
    if weights:
        settings["weights"] = str(weights)[:8]
    experiment = reader.section("hashes").get("experiment")
    if experiment:
        settings["data"] = str(experiment)[:8]
    if protocol:  # a run that failed before its protocol was recorded has nothing to compare
        settings |= {
            key: value
            for key, value in flat(read_config(folder)).items()
            if key not in CONFIG_NOT_COMPARED and not key.startswith("TRAINER.")
        }
    rules = balance_label(reader.section("balance"))
    if rules or settings.get(SAMPLER) == "RandomSampler":
        settings = {k: v for k, v in settings.items() if k not in BALANCE_KEYS}
    settings |= {"balance": rules} if rules else {}
    return {key: str(value) for key, value in settings.items()}


def balance_label(balance: dict[str, Any]) -> str:
    """The rules that balance the tasks of a run in words, without default values; "" by default."""
    values = balance.get("values")
    words = [
        balance.get("sampler", ""),
        f"T {balance['temperature']}" if "temperature" in balance else "",
        "epoch all" if balance.get("epoch") == "all" else "",
        f"weights {balance['task_weights']}" if "task_weights" in balance else "",
        " ".join(map(str, values)) if isinstance(values, list) else "",
        f"rate {balance['rate']}" if balance.get("rate", DEFAULT_RATE) != DEFAULT_RATE else "",
    ]
    return ", ".join(str(word) for word in words if word)


def read_config(folder: Path) -> dict:
    """The ``config.yaml`` of a run; empty if there is none.

    Raises:
        UserError: the file is no YAML of keys and values.
    """
    path = folder / CONFIG
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=YAML_LOADER)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first_line = str(error).split("\n")[0]
        raise UserError(f"{path} cannot be read as YAML: {first_line}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys and values")
    return content


def differences(recorded: dict, planned: dict) -> str:
    """The first three keys in which two configurations differ, with both values; "" if none do."""
    # through JSON, as the hash of a configuration is: in it tuples and lists are the same
    old, new = (flat(json.loads(json.dumps(config))) for config in (recorded, planned))
    found = [
        f"{place} was {a!r}, now {b!r}"
        for key in sorted(old.keys() | new.keys())
        for place, a, b in _unlike(key, old.get(key), new.get(key))
    ]
    return "; ".join(found[:3])


def _unlike(place: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    """What differs within a value: its place, such as ``DATASET.MEMBERS[1].NAME``, both sides."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        pairs = [(f"{place}.{key}", a[key], b[key]) for key in a]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = [(f"{place}[{i}]", *pair) for i, pair in enumerate(zip(a, b, strict=True))]
    else:
        if a != b:
            yield place, a, b
        return
    for pair in pairs:
        yield from _unlike(*pair)
