"""Export of a CLIP with what was learned in its weights, as a plain model of open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F

from clip import CLIP
from clip._tokenizers import HubTokenizer
from dassl.utils import UserError, write_json
from prompting.adapted import AdaptedPrompter
from prompting.deep_prompts import PromptedImages
from prompting.prompted_clip import PromptedCLIP

from . import export_folder
from .class_weights import describe_scored_tasks, logit_scale

if TYPE_CHECKING:
    from .run import LoadedRun

MODEL_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"  # open_clip's
TASK_FILE = "task.json"
PROBES = 4
TOLERANCE = 1e-5  # of normalised features

FEATURES = """\
import json, sys
import open_clip, torch
from PIL import Image

info = json.load(open("task.json", encoding="utf-8"))
model = open_clip.create_model("local-dir:.").eval()
prepare = open_clip.image_transform(is_train=False, **info["preprocessing"])
{once}for path in sys.argv[1:]:
    try:
        image = prepare(Image.open(path).convert("RGB"))[None]
    except Exception as error:
        print(f"not read: {path} ({error})", file=sys.stderr)
        continue
    with torch.no_grad():
        feature = model.encode_image(image, normalize=True)
"""
NAMES = """\
tokens = open_clip.get_tokenizer("local-dir:.")(info["phrases"])
with torch.no_grad():
    names = model.encode_text(tokens, normalize=True)
"""
CLASSIFY = """\
    probability, label = (info["logit_scale"] * feature @ names.T).softmax(-1)[0].max(0)
    print(path, info["classes"][label], f"{probability:.4f}", sep="\\t")
"""
CLASSIFY_SET = """\
    probabilities = (info["logit_scale"] * feature @ names.T + info["bias"]).sigmoid()[0].tolist()
    for label, probability in zip(info["classes"], probabilities):
        if probability >= info["threshold"]:
            print(path, label, f"{probability:.4f}", sep="\\t")
"""
SHOW = """\
    print(path, *feature[0, :4].tolist(), sep="\\t")
"""

README = """\
# {method} on {suite}, {task}: a model of open_clip

A CLIP with the weights that the run has after training; {text}.
It needs `open_clip_torch`{packages} and these lines, run in this folder:

```python
{code}```

| file | contents |
|---|---|
| `{weights_file}` | all weights, fp32 |
| `{model_file}` | the architecture, in the form that `local-dir:` and `hf-hub:` read |
| `{task_file}` | class names, their phrases, preprocessing, logit scale, source |
{files}
Trained from {backbone} with {shots}, seed {seed}. Measured on the test images:

{results}

The licence of the backbone's weights also applies to these.
"""


def export_model(run: LoadedRun, folder: Path, task: int | str | None = None) -> list[Path]:
    """Write the merged model, its description and a README; the files.

    The features of the merged model are compared with the run's before anything is written.

    Raises:
        UserError: the folder exists, what the method learns is no change of the towers' weights,
            or the features differ.
    """
    export_folder.refuse_existing(folder)
    ids = run.task_ids(task)
    clip = export_folder.merged_clip(run, ids)
    if clip is None:
        raise UserError(f"{run.method} cannot be merged into the weights: {_why_not(run, ids[0])}")
    classifies = _check(run, clip, ids[0])
    with export_folder.new_folder(folder) as place:
        info = _describe(run, ids[0])
        export_folder.save_clip(clip, place / WEIGHTS_FILE)
        config = export_folder.open_clip_config(clip, place)
        if isinstance(tokenizer := clip.text_tower.tokenizer, HubTokenizer):
            tokenizer.save(place)
        shown = ("mean", "std", "interpolation", "resize_mode")
        preprocessing = {key: info["preprocessing"][key] for key in shown}
        preprocessing["size"] = info["preprocessing"]["image_size"]
        write_json({"model_cfg": config, "preprocess_cfg": preprocessing}, place / MODEL_FILE)
        write_json(info, place / TASK_FILE)
        text = _readme(run, ids, info, classifies, place)
        (place / "README.md").write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


@torch.no_grad()
def _check(run: LoadedRun, clip: CLIP, t: int) -> bool:
    """Compare the features of the merged model with the run's on random images.

    Returns:
        Whether its text features are the run's class weights.
    """
    trainer, columns = run.place_of(t)
    model = cast(PromptedCLIP, trainer.model)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(PROBES, 3, *run.cfg.INPUT.SIZE, generator=generator).to(clip.device)
    task = torch.zeros(PROBES, dtype=torch.long)
    ours = F.normalize(model.encode_image(pixels, task)["global"].float(), dim=-1)
    theirs = F.normalize(clip.encode_image(pixels).float(), dim=-1)
    difference = (ours - theirs).abs().max().item()
    if difference > TOLERANCE:
        raise UserError(
            f"the merged model would not be the run's: their image features differ by "
            f"{difference:.1e}, and {TOLERANCE:.0e} is allowed; use --as prompts, which is loaded "
            "as it was trained"
        )
    phrases = cast(AdaptedPrompter, model.prompter).phrases[columns]
    text = F.normalize(clip.text_tower.encode_text(phrases).float(), dim=-1)
    return bool((text.cpu() - run.text_features(t)).abs().max() < TOLERANCE)


def _why_not(run: LoadedRun, t: int) -> str:
    """Why the method of a run has no merged weights, and what to do instead."""
    prompter = getattr(getattr(run.place_of(t)[0], "model", None), "prompter", None)
    if isinstance(prompter, PromptedImages):
        what = "it learns tokens that the image tower reads beside the patches; use --as onnx"
    elif run.depends_on_image:
        what = "it makes prompts anew for every image; use --as prompts"
    elif isinstance(prompter, AdaptedPrompter):
        what = "it learns modules that open_clip's towers do not have; use --as onnx"
    elif prompter is None or not prompter.makes_text_features:
        what = "it learns a classifier on the features of frozen towers; use --as onnx"
    else:
        what = "the towers stay frozen; use --as weights, or --as onnx where that is refused"
    return what


def _describe(run: LoadedRun, t: int) -> dict[str, Any]:
    """The content of the task's file."""
    (task,) = describe_scored_tasks(run, [t])
    return {
        **task,
        "phrases": run.place_of(t)[0].model.prompter.phrases,
        "logit_scale": logit_scale(run),
        "preprocessing": export_folder.open_clip_input(run),
        "source": export_folder.describe_source(run),
    }


def _readme(
    run: LoadedRun, ids: list[int], info: dict[str, Any], classifies: bool, place: Path
) -> str:
    text = (
        "classes are recognised by their phrases, as in zero-shot CLIP"
        if classifies
        else "its classifier is not part of it: `export.py --as weights` writes that"
    )
    classify = CLASSIFY_SET if "threshold" in info else CLASSIFY
    once, each = (NAMES, classify) if classifies else ("", SHOW)
    code = FEATURES.replace("{once}", once) + each
    return README.format(
        code=export_folder.with_orientation(run, code),
        text=text,
        task=info["name"],
        weights_file=WEIGHTS_FILE,
        model_file=MODEL_FILE,
        task_file=TASK_FILE,
        files=export_folder.text_tower_row(place),
        packages=export_folder.more_packages(run),
        **export_folder.readme_values(run, ids),
    )
