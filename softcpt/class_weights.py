"""Export of class weights: what a method's prompts became, for open_clip without this project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from clip import CLIP
from clip._openai import OPENAI_ARCHS
from dassl.utils import UserError, write_json

from . import export_folder
from .run import LoadedRun

ARCHITECTURE_FILE, BACKBONE_FILE = "backbone.json", "backbone.safetensors"
PROBES = 4  # random images on which the exported formula is compared with the run
TOLERANCE, ON_GPU = 1e-5, 1e-4  # of logits, relative to the largest; fp16 on a GPU

CODE = """\
import json, sys
import open_clip, torch
from PIL import Image
from safetensors.torch import load_file

info, images = json.load(open("weights.json", encoding="utf-8")), sys.argv[1:]
{register}model = open_clip.create_model(**info["model"]).eval()
prepare = open_clip.image_transform(is_train=False, **info["preprocessing"])
weights, task = load_file("weights.safetensors"), info["tasks"][0]
for path in images:
    try:
        pixels = prepare(Image.open(path).convert("RGB"))
    except Exception as error:
        print(f"not read: {path} ({error})", file=sys.stderr)
        continue
    with torch.no_grad():
        feature = model.encode_image(pixels[None])
    cosines = torch.nn.functional.normalize(feature, dim=-1) @ weights[task["weights"]].T
"""
ONE_CLASS = """\
    probability, label = (task["logit_scale"] * cosines).softmax(dim=-1)[0].max(dim=0)
    print(path, task["classes"][label], f"{probability:.4f}", sep="\\t")
"""
SET_OF_CLASSES = """\
    probabilities = (info["logit_scale"] * cosines + task["bias"]).sigmoid()[0].tolist()
    for label, probability in zip(task["classes"], probabilities):
        if probability >= task["threshold"]:
            print(path, label, f"{probability:.4f}", sep="\\t")
"""

README = """\
# {method} on {suite}: class weights

One weight vector of {width} numbers per class. The classifier is zero-shot CLIP's: the logits of an
image are the cosines of its feature and the weights of a task's classes, times the task's
`logit_scale`{calibrated}. It needs `open_clip_torch`, `safetensors`{packages}
and these lines, run in this folder:

```python
{code}```

| file | contents |
|---|---|
| `weights.safetensors` | weights (classes, {width}), normalised, fp32, of each task |
| `weights.json` | tasks, class names, templates, preprocessing, logit scale, backbone, source |
{files}
Backbone: {backbone}. Trained with {shots}, seed {seed}. Measured on the test images:

{results}

The licence of the backbone's weights also applies to what is computed from them.
"""


def export_weights(
    run: LoadedRun, folder: Path, task: int | str | None = None, calibrated: bool = False
) -> list[Path]:
    """Write class weights, their description and a README; the files.

    Args:
        calibrated: divide the logit scale of each task by its temperature.

    Raises:
        UserError: the folder exists, or the logits of the method are no scaled cosines of image
            features and one weight per class.
    """
    export_folder.refuse_existing(folder)
    ids = run.task_ids(task)
    weights = _class_weights(run, ids)
    with export_folder.new_folder(folder) as place:
        model = _describe_model(_scoring_clip(run, ids), place)
        info = _describe(run, ids, model, calibrated)
        write_json(info, place / "weights.json")
        save_file({f"task{t}": x for t, x in weights.items()}, place / "weights.safetensors")
        text = _readme(run, ids, info, place)
        (place / "README.md").write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


def _class_weights(run: LoadedRun, ids: Sequence[int]) -> dict[int, torch.Tensor]:
    """Weights (C, e) by task, after a comparison with the run's own logits on random images."""
    try:
        weights = {t: run.text_features(t).contiguous() for t in ids}
    except UserError as error:
        raise UserError(
            f"{error}: there are no class weights to export{_other_ways(run)}"
        ) from None
    clip, size = _scoring_clip(run, ids), run.cfg.INPUT.SIZE
    pixels = torch.randn(PROBES, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = clip.encode_image(pixels.to(clip.device)).float()
    x = logit_scale(run) * F.normalize(features, dim=-1).cpu()  # (B, e)
    tolerance = TOLERANCE if clip.device.type == "cpu" else ON_GPU
    bias = 0.0 if clip.logit_bias is None else clip.logit_bias.item()  # the softmax cancels it
    for t, logits in zip(ids, run.logits_of_pixels(pixels, ids), strict=True):
        expected = x @ weights[t].T + bias  # (B, C)
        if (logits - expected).abs().max() > tolerance * logits.abs().max():
            raise UserError(
                f"the logits of {run.method} are more than scaled cosines of image features and "
                f"one weight per class: no class weights to export{_other_ways(run)}"
            )
    return weights


def _scoring_clip(run: LoadedRun, ids: Sequence[int]) -> CLIP:
    """The CLIP that encodes images: the frozen one, or a copy with what was learned in it."""
    trainer = run.place_of(ids[0])[0]
    adapts = getattr(trainer.model.prompter, "adapts_visual", False)
    return (export_folder.merged_clip(run, ids) if adapts else None) or trainer.clip


def _other_ways(run: LoadedRun) -> str:
    onnx = "" if run.depends_on_image else "--as onnx exports the whole computation, "
    return f"; {onnx}--as prompts what was learned"


def logit_scale(run: LoadedRun) -> float:
    """What cosines are multiplied with."""
    return run.trainers[0].clip.logit_scale.float().exp().item()


def _describe_model(clip: CLIP, place: Path) -> dict[str, Any]:
    """Arguments of ``open_clip.create_model``; a backbone without a public tag is written."""
    if clip.name in OPENAI_ARCHS:
        arch, tag = OPENAI_ARCHS[clip.name], "openai"
    else:
        arch, _, tag = clip.name.rpartition("/")
    if open_clip.is_pretrained_cfg(arch, tag):
        gelu = clip.config["quick_gelu"]
        return {"model_name": arch, "pretrained": tag, "force_quick_gelu": gelu}
    write_json(export_folder.open_clip_config(clip, place), place / ARCHITECTURE_FILE)
    export_folder.save_clip(clip, place / BACKBONE_FILE)
    return {"model_name": Path(ARCHITECTURE_FILE).stem, "pretrained": BACKBONE_FILE}


def _describe(
    run: LoadedRun, ids: Sequence[int], model: dict[str, Any], calibrated: bool
) -> dict[str, Any]:
    """The content of ``weights.json``."""
    tasks = describe_scored_tasks(run, ids)
    for t, one in zip(ids, tasks, strict=True):
        one["weights"] = f"task{t}"
        one["logit_scale"] = logit_scale(run) / (run.temperature(t) if calibrated else 1)
    return {
        "model": model,
        "preprocessing": export_folder.open_clip_input(run),
        "logit_scale": logit_scale(run),
        "temperature": 1 / logit_scale(run),
        "tasks": tasks,
        "source": export_folder.describe_source(run),
    }


def describe_scored_tasks(run: LoadedRun, ids: Sequence[int]) -> list[dict[str, Any]]:
    """The tasks, for users that compute scaled cosines: the bias includes the backbone's own."""
    tasks, own = export_folder.describe_tasks(run, ids), run.trainers[0].clip.logit_bias
    for task in tasks:
        if "bias" in task and own is not None:
            task["bias"] += own.item()
    return tasks


def _scales(info: dict[str, Any]) -> str:
    """What the logit scales of the tasks are, in words."""
    own = sorted({task["logit_scale"] for task in info["tasks"]})
    if own == [info["logit_scale"]]:
        return f"{own[0]:.4g}, CLIP's"
    shown = f"{own[0]:.4g}" if len(own) == 1 else f"{own[0]:.4g} to {own[-1]:.4g}"
    return f"{shown}: CLIP's {info['logit_scale']:.4g} over a fitted temperature"


def _readme(run: LoadedRun, ids: Sequence[int], info: dict[str, Any], place: Path) -> str:
    embedded = (place / BACKBONE_FILE).exists()
    register = f'open_clip.add_model_config("{ARCHITECTURE_FILE}")\n' if embedded else ""
    answer = SET_OF_CLASSES if "threshold" in info["tasks"][0] else ONE_CLASS
    files = (
        f"| `{ARCHITECTURE_FILE}`, `{BACKBONE_FILE}` | the CLIP, which has no public weights |\n"
        if embedded
        else ""
    )
    return README.format(
        code=export_folder.with_orientation(run, CODE.replace("{register}", register) + answer),
        calibrated=f" ({_scales(info)})",
        width=run.trainers[0].clip.text_tower.out_dim,
        files=files + export_folder.text_tower_row(place),
        packages=export_folder.more_packages(run),
        **export_folder.readme_values(run, ids),
    )
