"""Invented records of runs."""

import json
from pathlib import Path

TASKS = (("kind of tree", "", 80.0), ("kind of leaf", "", 60.0))


def record(tasks=TASKS, status="complete", run=None, data=None, **protocol) -> dict:
    """The content of a results.json; ``tasks`` are triples of name, group and value."""
    groups: dict[str, list[float]] = {}
    for _, group, value in tasks:
        groups.setdefault(group, []).append(value)
    means = {group: sum(values) / len(values) for group, values in groups.items()}
    alike = len(groups) == 1
    return {
        "schema": 1,
        "status": status,
        "protocol": {
            "name": "few_shot",
            "suite": "Trees",
            "method": "CoOp-CA",
            "trainer": "CoOp",
            "shots": 4,
            "seed": 1,
            "options": {"N_CTX": 16, "CSC": False},
            "backbone": "RN50",
            **protocol,
        },
        "tasks": [
            {"id": i, "name": n, "group": g, "metric": "overall_acc", "value": v}
            for i, (n, g, v) in enumerate(tasks)
        ],
        "suite": {
            "metric": "mean over tasks",
            "value": means.popitem()[1] if alike else None,
            "groups": {} if alike else means,
        },
        **({"run": run} if run else {}),
        **({"data": data} if data else {}),
    }


def write(folder, **keys) -> Path:
    """Write a record into a run folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(record(**keys)))
    return folder


def seeds(folder, values, **keys) -> Path:
    """An experiment with a seed per pair of values of the two tasks."""
    for seed, (tree, leaf) in enumerate(values, start=1):
        tasks = (("kind of tree", "", tree), ("kind of leaf", "", leaf))
        write(Path(folder) / f"seed{seed}", tasks=tasks, seed=seed, **keys)
    return Path(folder)
