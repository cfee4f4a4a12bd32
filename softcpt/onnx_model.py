"""Export of image tower and classifier as one ONNX file, for onnxruntime without torch."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dassl.engine import SimpleTrainer
from dassl.utils import UserError, write_json
from prompting.prompted_clip import PromptedCLIP

from . import export_folder
from .run import LoadedRun

PACKAGES = ("onnx", "onnxscript")
TRACED = 2  # images while the graph is recorded; a single one could become a constant
CHECKED = (1, 3)  # batch sizes of the comparison with the run
TOLERANCE = 1e-4  # of logits, relative to the largest

CODE = """\
import json, sys
import numpy as np, onnxruntime
from PIL import Image

info = json.load(open("model.json", encoding="utf-8"))
session = onnxruntime.InferenceSession("model.onnx")
(height, width), short = info["size"], max(info["size"])
for path in sys.argv[1:]:
    try:
        image = Image.open(path).convert("RGB")
    except Exception as error:
        print(f"not read: {path} ({error})", file=sys.stderr)
        continue
    (w, h), smaller = image.size, min(image.size)
    w, h = int(short * w / smaller), int(short * h / smaller)
    w, h = (width, height) if info["resize_mode"] == "squash" else (w, h)
    image = image.resize((w, h), Image.Resampling[info["interpolation"].upper()])
    left, top = round((w - width) / 2), round((h - height) / 2)
    pixels = np.asarray(image.crop((left, top, left + width, top + height))) / 255
    pixels = ((pixels - info["mean"]) / info["std"]).astype(np.float32).transpose(2, 0, 1)
    logits = session.run(None, {"images": pixels[None]})[0][0]
    for task in info["tasks"]:
        own = logits[task["first"] : task["first"] + len(task["classes"])]
{sets}        chance = np.exp(own - own.max()) / np.exp(own - own.max()).sum()
        print(path, task["name"], task["classes"][own.argmax()], f"{chance.max():.4f}", sep="\\t")
"""

SETS = """\
        if "threshold" in task:  # an image has a set of classes
            chances = 1 / (1 + np.exp(-own - task["bias"]))
            found = [i for i, p in enumerate(chances) if p >= task["threshold"]]
            print(path, task["name"], *(task["classes"][i] for i in found), sep="\\t")
            continue
"""

README = """\
# {method} on {suite}: ONNX

`model.onnx` takes `images`, (batch, 3, {height}, {width}) fp32, and gives `logits`,
(batch, {classes}): the classes of each task are the columns from `first` on, see `model.json`.
Probabilities are the softmax within a task{sigmoid}.
It needs `onnxruntime`, `numpy` and `pillow`, and these lines, run in this folder:

```python
{code}```

Backbone: {backbone}. Trained with {shots}, seed {seed}. Measured on the test images:

{results}

The licence of the backbone's weights, which `model.onnx` holds, applies to it.
"""


class Classifier(nn.Module):
    """Logits (B, C) of prepared images (B, 3, H, W), the chosen tasks side by side.

    Text is encoded, and columns are looked up, before the graph is recorded.
    """

    def __init__(self, run: LoadedRun, ids: Sequence[int]):
        super().__init__()
        self.models = nn.ModuleList(run.models())
        self._parts = []
        for t in ids:
            trainer, columns = run.place_of(t)
            self._parts.append((trainer, columns, run.inference_of(t), run.image_task_of(t)))
        self._joint = len(run.trainers) == 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, C)."""
        logits = []
        inputs: dict[int, Any] = {}
        for trainer, columns, infer, image_task in self._parts:
            if image_task not in inputs:
                task = torch.full((images.shape[0],), image_task if self._joint else 0)
                inputs[image_task] = encode(trainer, images, task)
            logits.append(infer(inputs[image_task]).float()[:, columns])
        return torch.cat(logits, dim=1)


def encode(trainer: SimpleTrainer, images: torch.Tensor, task: torch.Tensor) -> Any:
    """What the inference of a trainer takes, for images (B, 3, H, W) of tasks (B,)."""
    model = trainer.model
    return model.encode_image(images, task) if isinstance(model, PromptedCLIP) else images


def export_onnx(run: LoadedRun, folder: Path, task: int | str | None = None) -> list[Path]:
    """Write ``model.onnx``, its description and a README; the files.

    The graph is compared with the run in onnxruntime, where that is installed.

    Raises:
        UserError: the folder exists, a package is missing, or the text features of the method
            depend on the image.
    """
    export_folder.refuse_existing(folder)
    if run.depends_on_image:
        raise UserError(
            f"{run.method} encodes text anew for every image, which is no "
            "fixed graph of the image alone; --as prompts exports what was learned"
        )
    require(PACKAGES)
    ids = run.task_ids(task)
    with export_folder.new_folder(folder) as place:
        _write_graph(run, ids, place / "model.onnx")
        tasks, first = export_folder.describe_tasks(run, ids), 0
        for one in tasks:
            one["first"], first = first, first + len(one["classes"])
        given, source = export_folder.describe_input(run), export_folder.describe_source(run)
        write_json({**given, "tasks": tasks, "source": source}, place / "model.json")
        height, width = given["size"]
        sets = any("threshold" in one for one in tasks)
        text = README.format(
            code=export_folder.with_orientation(run, CODE.replace("{sets}", SETS if sets else "")),
            sigmoid=", or the sigmoid of logit + bias in a multi-label task" if sets else "",
            classes=first,
            height=height,
            width=width,
            **export_folder.readme_values(run, ids),
        )
        (place / "README.md").write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


def require(packages: Sequence[str]) -> None:
    """Refuse to go on without optional packages.

    Raises:
        UserError: it names those that are missing.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UserError(f"--as onnx needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def _write_graph(run: LoadedRun, ids: Sequence[int], path: Path) -> None:
    """Record the computation, and compare it with the run."""
    size = run.cfg.INPUT.SIZE
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(max(TRACED, *CHECKED), 3, *size, generator=generator)
    model = Classifier(run, ids)
    expected = torch.cat(run.logits_of_pixels(images, ids), dim=1)
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                model,
                (images[:TRACED],),
                path,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                dynamo=True,
                external_data=False,
            )
    except Exception as error:  # torch has many for what it cannot record
        if isinstance(cause := error.__cause__ or error, OSError):
            raise cause from None
        raise UserError(
            f"torch cannot record {run.method} as a fixed graph ({type(cause).__name__}); --as "
            "prompts exports what was learned"
        ) from error
    if importlib.util.find_spec("onnxruntime") is None:
        print("onnxruntime is not installed: the graph is not compared with the run")
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in CHECKED:
        found = torch.from_numpy(session.run(None, {"images": images[:count].numpy()})[0])
        difference = (found - expected[:count]).abs().max() / expected.abs().max()
        if difference > TOLERANCE:
            raise RuntimeError(f"the ONNX graph's logits differ from the run's by {difference:.1e}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter prints and warns of; its errors are raised."""
    hidden = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(hidden),
        contextlib.redirect_stderr(hidden),
    ):
        warnings.simplefilter("ignore")
        level = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(level)
