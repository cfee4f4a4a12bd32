"""The exports of a run, by kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dassl.utils import UserError, unknown_name

if TYPE_CHECKING:
    from .run import LoadedRun

KINDS = ("weights", "onnx", "open_clip", "prompts")


def export_run(
    run: LoadedRun,
    folder: str | os.PathLike,
    kind: str = "weights",
    task: int | str | None = None,
    calibrated: bool = False,
) -> list[Path]:
    """Write a run into a new folder, for use in other programs; returns the files.

    Args:
        kind: "weights", one vector per class, for open_clip without this project; "onnx", image
            tower and classifier, for onnxruntime; "open_clip", the backbone with what was learned
            in its weights; "prompts", the learned parameters.
        task: one task, as in ``LoadedRun.task_ids``; None all. "prompts" are always all.
        calibrated: of "weights": include the temperatures of ``TEST.CALIBRATION``. "prompts"
            always hold them.

    Raises:
        UserError: the folder exists, the run has no classes, the method does not allow this kind,
            or the run has no temperatures.
    """
    run.require_classes()
    if calibrated and (kind != "weights" or "calibration" not in run.record):
        raise UserError(
            f"{run.folder} has no temperatures to export: it was trained without "
            "TEST.CALIBRATION, or loaded with other names or at another epoch than the evaluated "
            "one; train with TEST.CALIBRATION run or task, or leave out --calibrated"
            if kind == "weights"
            else f"--calibrated goes with --as weights, not with --as {kind}"
        )
    place = Path(os.path.expanduser(folder))
    if kind == "weights":
        from .class_weights import export_weights

        return export_weights(run, place, task, calibrated)
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
