"""The exports of a run, by kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dassl.utils import unknown_name

if TYPE_CHECKING:
    from .run import LoadedRun

KINDS = ("weights", "onnx", "open_clip", "prompts")


def export_run(
    run: LoadedRun, folder: str | os.PathLike, kind: str = "weights", task: int | str | None = None
) -> list[Path]:
    """Write a run into a new folder, for use by others; the files.

    Args:
        kind: "weights", one vector per class, for open_clip without this project; "onnx", image
            tower and classifier, for onnxruntime; "open_clip", the backbone with what was learned
            in its weights; "prompts", the learned parameters.
        task: one task, as in ``LoadedRun.task_ids``; None all. "prompts" are always all.

    Raises:
        UserError: the folder exists, or the method does not allow this kind.
    """
    place = Path(folder).expanduser()
    if kind == "weights":
        from .class_weights import export_weights

        return export_weights(run, place, task)
    if kind == "onnx":
        from .onnx_model import export_onnx

        return export_onnx(run, place, task)
    if kind == "open_clip":
        from .merged_model import export_model

        return export_model(run, place, task)
    if kind == "prompts":
        from .learned_parameters import export_parameters

        return export_parameters(run, place)
    raise unknown_name("kind of export", kind, KINDS)
