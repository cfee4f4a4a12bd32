"""Export of what a run learned as a small folder, which ``softcpt.load_run`` loads again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

from dassl.engine import TrainerBase
from dassl.engine.checkpoints import check_metadata, load_strictly
from dassl.utils import UserError, write_json
from results.schema import FILE as RECORD
from results.tasks_file import FILE as TASKS

from .export_folder import (
    describe_source,
    describe_tasks,
    new_folder,
    readme_values,
    refuse_existing,
)
from .run import LoadedRun
from .run_folder import CONFIG, PARAMETERS

HUB_METRICS = {"mAP": "mean_average_precision"}  # the hub's names; the others are accuracies

README = """\
---
{front}---

# {method} on {suite}, {shots}, seed {seed}

What a run of softcpt learned: {count:,} numbers. The frozen backbone, {backbone}, is not included
and is loaded by its name; only the same weights are accepted (sha256 {weights}).

```python
import softcpt

run = softcpt.load_run("path/of/this/folder")
print(run.predict("image.jpg"))
```

or `python predict.py path/of/this/folder image.jpg`.

| file | contents |
|---|---|
| `{parameters}` | the learned tensors |
| `{config}` | the configuration of the training |
| `{tasks}` | name, class names and templates of each task |
| `{record}` | results, hashes of data and weights, versions, time |

Measured on the test images:

{results}

Trained on data with the hash {data}, by this command and the settings in `{config}`:

    python train.py --trainer {trainer} --config-file {config} --root DATA --output-dir DIR

The licences of the backbone's weights and of the training images also apply to what was learned
from them.
"""


def export_parameters(run: LoadedRun, folder: Path) -> list[Path]:
    """Write the learned tensors with all that is needed to load them; the files.

    Raises:
        UserError: the folder exists, or names of the run were replaced when it was loaded.
    """
    refuse_existing(folder)
    if run.renamed:
        raise UserError(
            "names of the run were replaced when it was loaded, and an export of prompts has "
            "those of the training: load the run without other names"
        )
    tensors: dict[str, torch.Tensor] = {}
    metadata: dict[str, str] = {}
    for i, trainer in enumerate(run.trainers):
        for name, model in zip(trainer.get_model_names(), trainer.models(), strict=True):
            state = model.state_dict()
            tensors |= {f"{i}.{name}.{key}": x.contiguous().cpu() for key, x in state.items()}
        metadata[str(i)] = json.dumps(trainer.checkpoint_metadata())
    with new_folder(folder) as place:
        save_file(tensors, place / PARAMETERS, metadata=metadata)
        for name in (CONFIG, TASKS):
            if not (run.folder / name).is_file():
                raise UserError(f"{run.folder} has no {name}, which an export of prompts needs")
            shutil.copyfile(run.folder / name, place / name)
        write_json(run.record, place / RECORD)
        (place / "README.md").write_text(_readme(run, tensors), encoding="utf-8")
    return sorted(folder.iterdir())


def _readme(run: LoadedRun, tensors: dict[str, torch.Tensor]) -> str:
    """The model card."""
    return README.format(
        front=yaml.safe_dump(_front_matter(run), sort_keys=False, allow_unicode=True),
        **describe_source(run) | readme_values(run, run.task_ids()),
        trainer=run.cfg.TRAINER.NAME,
        count=sum(x.numel() for x in tensors.values()),
        parameters=PARAMETERS,
        config=CONFIG,
        tasks=TASKS,
        record=RECORD,
    )


def _front_matter(run: LoadedRun) -> dict[str, Any]:
    """What the Hugging Face hub reads of a model card, the metrics among it."""
    source = describe_source(run)
    results = [
        {
            "task": {"type": "image-classification", "name": task["name"]},
            "dataset": {"name": source["suite"], "type": source["suite"].lower()},
            "metrics": [
                {
                    "type": HUB_METRICS.get(task["test"]["metric"], "accuracy"),
                    "name": task["test"]["metric"],
                    "value": task["test"]["value"],
                }
            ],
        }
        for task in describe_tasks(run, run.task_ids())
        if task["test"] and task["test"]["value"] is not None
    ]
    return {
        "library_name": "softcpt",
        "pipeline_tag": "image-classification",
        "tags": ["clip", "prompt-tuning", "few-shot"],
        "license": "other",  # that of the backbone and of the images: see the text
        "model-index": [{"name": f"{source['method']} on {source['suite']}", "results": results}],
    }


def load_parameters(trainer: TrainerBase, folder: Path) -> None:
    """Load what ``export_parameters`` wrote.

    Raises:
        UserError: the file is broken, or of another configuration, backbone or set of names.
    """
    path = folder / PARAMETERS
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has an exception of its own
        raise UserError(f"cannot read {path}: {error}") from None
    for i, part in enumerate(trainer.task_trainers):
        for name, model in zip(part.get_model_names(), part.models(), strict=True):
            prefix = f"{i}.{name}."
            own = {k.removeprefix(prefix): x for k, x in tensors.items() if k.startswith(prefix)}
            load_strictly(model, own, path)
        saved = json.loads(metadata.get(str(i), "{}"))
        check_metadata(saved, part.checkpoint_metadata(), path)
