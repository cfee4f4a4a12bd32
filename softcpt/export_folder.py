"""What all exports share: a folder that appears complete or not at all, and the preprocessing."""

from __future__ import annotations

import contextlib
import copy
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.utils import UserError, naming_damaged
from dassl.utils.files import naming_full_disk
from results.schema import FILE as RECORD
from results.shots import shots_phrase

TEXT_FOLDER = "text_tower"  # with the configuration of a text tower of Hugging Face

if TYPE_CHECKING:
    from clip import CLIP
    from dassl.data.label_kinds import SingleLabel

    from .run import LoadedRun


def refuse_existing(folder: Path) -> None:
    """Refuse to export over a folder or file that exists.

    Raises:
        UserError: it exists, and is not an empty folder.
    """
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already: choose another folder, or delete it")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that becomes it when the block succeeds.

    Raises:
        UserError: the folder exists, or its parent cannot be written.
        OSError: the disk is full, for example.
    """
    from safetensors import SafetensorError

    refuse_existing(folder)
    temporary = folder.parent / f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder.parent}: {error.strerror}") from None
    try:
        with naming_full_disk(folder):
            yield temporary
        os.replace(temporary, folder)  # of an empty folder too
    except SafetensorError as error:  # it has no error number
        raise OSError(f"cannot write {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def describe_input(run: LoadedRun) -> dict[str, Any]:
    """How the run prepares an image: resized (and cropped, unless squashed), normalised.

    Raises:
        UserError: it does not resize images.
    """
    options = run.cfg.INPUT
    if options.NO_TRANSFORM:
        raise UserError("INPUT.NO_TRANSFORM is True: an export needs images of one size")
    normalised = "normalize" in options.TRANSFORMS
    return {
        "size": list(options.SIZE),  # height, width
        "mean": list(options.PIXEL_MEAN) if normalised else [0.0] * 3,
        "std": list(options.PIXEL_STD) if normalised else [1.0] * 3,
        "interpolation": options.INTERPOLATION,
        "resize_mode": options.RESIZE_MODE or "shortest",
    }


def with_orientation(run: LoadedRun, code: str) -> str:
    """A README's code, with photographs turned upright if the run does that."""
    if run.cfg.INPUT.EXIF != "apply":
        return code
    code = code.replace("from PIL import Image", "from PIL import Image, ImageOps")
    return code.replace("Image.open(path)", "ImageOps.exif_transpose(Image.open(path))")


def describe_tasks(run: LoadedRun, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Name, class names and templates of tasks, and what the run measured on them.

    A task that is not of one class per image also has its kind of label, and of a multi-label task
    what the sigmoid needs: the bias of the logits, and the threshold of the probability.
    """
    with naming_damaged(run.folder / RECORD):
        measured = {task["id"]: task for task in run.record["tasks"]}
    return [
        {
            "name": run.tasks[t].name,
            "classes": list(run.tasks[t].classnames),
            "templates": list(run.tasks[t].templates),
            "test": {key: measured[t].get(key) for key in ("metric", "value", "total")}
            if t in measured
            else None,
            **_describe_kind(run.tasks[t].kind),
        }
        for t in ids
    ]


def _describe_kind(kind: SingleLabel) -> dict[str, Any]:
    """What :func:`describe_tasks` says of a kind of label."""
    from dassl.data.label_kinds import MultiLabel, SingleLabel  # imports torch, slowly

    if isinstance(kind, MultiLabel):
        return {"kind": kind.name, "bias": kind.bias, "threshold": kind.threshold}
    return {} if type(kind) is SingleLabel else {"kind": kind.name}


def describe_source(run: LoadedRun) -> dict[str, Any]:
    """Where an export comes from: the method, the backbone, the data, by name and hash."""
    keys = ("method", "backbone", "suite", "shots", "seed")
    with naming_damaged(run.folder / RECORD):
        protocol, hashes = run.record["protocol"], run.record["hashes"]
        return {
            **{key: protocol.get(key) for key in keys},
            "data": hashes.get("data", ""),
            "weights": hashes.get("weights", ""),
        }


def readme_values(run: LoadedRun, ids: Sequence[int]) -> dict[str, Any]:
    """What the README of every export names: method, data, backbone, results."""
    source = describe_source(run)
    values = {key: source[key] for key in ("method", "suite", "backbone", "seed")}
    shots = shots_phrase(source["shots"] or 0)
    return {**values, "shots": shots, "results": result_lines(run, ids)}


def result_lines(run: LoadedRun, ids: Sequence[int]) -> str:
    """A Markdown table of what the run measured on its test images."""
    lines = ["| task | classes | metric | % | test images |", "|---|---|---|---|---|"]
    for task in describe_tasks(run, ids):
        test = task["test"] or {}
        value = "–" if test.get("value") is None else f"{test['value']:.2f}"
        row = (task["name"], len(task["classes"]), test.get("metric", ""), value)
        lines.append(f"| {' | '.join(map(str, row))} | {test.get('total', '')} |")
    return "\n".join(lines)


def open_clip_config(clip: CLIP, place: Path) -> dict[str, Any]:
    """The architecture of a CLIP, as ``open_clip.create_model`` reads it in the folder ``place``.

    The configuration of a text tower of Hugging Face is written into a folder there.
    """
    from clip._text_variants import HubTextTower

    # without CoCa's decoder and the features of single tokens, which ours leaves out too
    config = {k: v for k, v in clip.config.items() if k != "multimodal_cfg"}
    vision = {**config["vision_cfg"], "output_tokens": False}
    text = {**config["text_cfg"], "output_tokens": False}
    if text["tokenizer_kwargs"] is None:  # which open_clip's tokenizers refuse
        del text["tokenizer_kwargs"]
    if isinstance(clip.text_tower, HubTextTower):
        clip.text_tower.save_config(place / TEXT_FOLDER)
        text |= {"hf_model_name": TEXT_FOLDER, "hf_model_pretrained": False}
    return {**config, "vision_cfg": vision, "text_cfg": text}


def text_tower_row(place: Path) -> str:
    """The line on the text tower's folder in a README's table of files, if there is one."""
    row = f"| `{TEXT_FOLDER}` | the configuration of its text tower |\n"
    return row if (place / TEXT_FOLDER).exists() else ""


def more_packages(run: LoadedRun) -> str:
    """What a README adds to the packages that are needed, and the comma after them."""
    text = run.trainers[0].clip.config["text_cfg"]
    return ", `transformers`," if text["hf_model_name"] or text["hf_tokenizer_name"] else ","


def save_clip(clip: CLIP, path: Path) -> None:
    """Write the weights of a CLIP as open_clip names them, in fp32."""
    from safetensors.torch import save_file

    from clip._weights import to_custom_text

    state = clip.state_dict()
    state = to_custom_text(state) if clip.config.get("custom_text") else state
    save_file({k: v.float().contiguous() for k, v in state.items()}, path)


def open_clip_input(run: LoadedRun) -> dict[str, Any]:
    """:func:`describe_input` as the options of ``open_clip.image_transform``.

    Raises:
        UserError: open_clip cannot prepare images so.
    """
    options = describe_input(run)
    if options["interpolation"] == "nearest":
        raise UserError("open_clip does not resize with INPUT.INTERPOLATION nearest; use --as onnx")
    height, width = options.pop("size")
    return {**options, "image_size": height if height == width else [height, width]}


def merged_clip(run: LoadedRun, ids: Sequence[int]) -> CLIP | None:
    """A copy of the run's CLIP with what was learned in the weights of its towers; None if nothing.

    Raises:
        UserError: each task has learned weights of its own, and several are chosen.
    """
    trainer = run.place_of(ids[0])[0]
    prompter = getattr(getattr(trainer, "model", None), "prompter", None)
    merged = prompter.merged_weights(trainer.clip) if prompter else None
    if merged is None:
        return None
    if len(ids) > 1:
        raise UserError(
            f"{run.method} learns in the towers, for each task in its own: choose one "
            "task with --task"
        )
    clip = copy.deepcopy(trainer.clip)
    clip.load_state_dict(merged)
    clip.name = f"{clip.name} (merged)"  # which has no public weights
    return clip
