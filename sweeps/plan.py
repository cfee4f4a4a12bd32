"""A sweep: which runs it consists of, read from a YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dassl.config.node import read_yaml
from dassl.utils import UserError, unknown_name
from results.aggregate import SPREADS

from .cluster import Cluster, read_cluster
from .grid import grid_runs
from .planned_run import PlannedRun, override_words
from .protocols import check_fitting, check_mapping, check_protocol_keys

KEYS = {
    "output": str,  # folder of all runs
    "datasets": list,  # names of configs/datasets/<name>.yaml, or paths of YAML files
    "shots": (list, dict),  # training images per class, -1: all; a dict adds keys to each
    "seeds": list,
    "backbones": list,  # instead of each method's own
    # a preset of configs/protocols/; base_to_new tests the new classes too, leave_one_task_out the
    # tasks of held_out, each with the prompts of a training on the others; transfer trains on
    # source, then on targets from it and from scratch; task_groups on all tasks, groups, each task
    "protocol": str,
    "held_out": list,  # numbers of tasks, from 0
    "source": dict,  # sweeps.protocols.SOURCE_KEYS
    "targets": list,  # numbers of tasks, from 0
    "groups": list,  # lists of numbers of tasks, from 0
    "methods": dict,  # name in the report: METHOD_KEYS
    "overrides": dict,  # configuration keys of every run
    "report": dict,  # REPORT_KEYS
    "cluster": dict,  # sweeps.cluster.Cluster
}
REQUIRED = ("output", "datasets", "shots", "seeds", "methods")
METHOD_KEYS = {
    "trainer": str,
    "config": str,
    "opts": dict,  # configuration keys of this method
    "once": bool,  # neither shots nor seeds change anything: one run per dataset
    "optional": bool,  # run only if --methods names it
}
REPORT_KEYS = {
    "table": str,  # a file in the output folder
    "figure": str,  # another
    "spread": str,  # what follows ± in the table: one of SPREADS; std if left out
}
# Keys that the sweep sets itself, so that a folder's name says what is in it.
SET_BY_SWEEP = (
    "SEED",
    "OUTPUT_DIR",
    "DATASET.NAME",
    "DATASET.NUM_SHOTS",
    "TRAINER.NAME",
    "PROTOCOL",
)
ONLY_KEYS = ("method", "dataset", "backbone", "shots", "seed")


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep, and the files of its report.

    Args:
        runs: those that were selected.
        methods: names of all methods, in the order of the YAML.
        planned: the runs of every method of the YAML, which the report covers.
    """

    output: Path
    runs: tuple[PlannedRun, ...]
    methods: tuple[str, ...]
    report: dict[str, Path]
    cluster: Cluster
    spread: str = "std"
    planned: tuple[PlannedRun, ...] = ()

    def only(self, choice: str) -> Sweep:
        """The part of the sweep that a choice such as ``method=CoOp|CoOp-MT,seed=1`` selects.

        Raises:
            UserError: an unknown key, or a value that no run has.
        """
        runs = self.runs
        for part in filter(None, choice.split(",")):
            key, _, values = part.partition("=")
            if key not in ONLY_KEYS:
                raise unknown_name("key of --only", key, ONLY_KEYS)
            known = list(dict.fromkeys(str(getattr(run, key)) for run in self.runs))
            for value in values.split("|"):
                if value not in known:
                    raise unknown_name(f"{key} in the sweep", value, known)
            runs = tuple(run for run in runs if str(getattr(run, key)) in values.split("|"))
        if not runs:
            raise UserError(f"no run of the sweep fits --only {choice}")
        return replace(self, runs=runs)


def read_sweep(
    path: str | Path,
    overrides: Sequence[str] = (),
    output: str = "",
    configs: str | Path = "configs",
    methods: str = "",
) -> Sweep:
    """Read and check a sweep's YAML.

    Args:
        overrides: ``[KEY, VALUE, ...]`` for every run; they win over the YAML's.
        output: another folder for the runs than the YAML's.
        configs: folder that holds ``datasets/<name>.yaml``. Paths of files are relative to the
            folder that contains it, to the current folder, or to that of the YAML.
        methods: names of the methods to run, with commas between them; "all" for every one, ""
            for those that are not optional.

    Raises:
        UserError: a key is unknown, missing or holds something else; a file is missing; or
            ``methods`` names one that is not in the YAML.
    """
    path, configs = Path(path).expanduser(), Path(configs)
    content = check_mapping(read_yaml(path), KEYS, "key", f"{path}: ")
    for key in REQUIRED:
        if not content.get(key):
            raise UserError(f"{path}: {key} is missing or empty")
    _check_numbers(content, path)
    _find_datasets(content, configs, path)
    content["methods"] = {
        str(name): _checked_method(name, method, configs, path)
        for name, method in content["methods"].items()
    }
    chosen = _chosen(content["methods"], methods, path)
    if protocol := content.get("protocol"):
        _check_name("protocol", protocol, configs / "protocols", path)
    check_protocol_keys(content, path)
    report = _checked_report(content, path)
    output = Path(output or content["output"]).expanduser()
    shared = [*_pairs(content.get("overrides"), path), *_checked_overrides(overrides)]
    planned = tuple(_checked_runs(content, output, shared, path))
    return Sweep(
        output=output,
        runs=_runs_with(shared[::2], [run for run in planned if run.method in chosen]),
        methods=tuple(content["methods"]),
        report={key: output / name for key, name in report.items() if key != "spread"},
        cluster=read_cluster(content.get("cluster", {}), f"{path}: "),
        spread=report["spread"],
        planned=planned,
    )


def _runs_with(keys: Sequence[str], runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """The chosen runs; an override that none of them gets, as none reads its node, is refused."""
    for key in keys:
        if runs and not any(key in run.argv for run in runs):
            chosen = ", ".join(dict.fromkeys(run.method for run in runs))
            raise UserError(f"{key} has no effect: no chosen method reads it ({chosen})")
    return tuple(runs)


def _check_numbers(content: dict, path: Path) -> None:
    for key in ("shots", "seeds"):
        values = list(content[key])
        wrong = [v for v in values if not isinstance(v, int) or isinstance(v, bool)]
        wrong += [v for v in values if v == 0 and key == "shots"]
        if wrong:
            raise UserError(f"{path}: {key} takes whole numbers, but holds {wrong[0]!r}")
        if len(set(values)) < len(values):
            raise UserError(f"{path}: {key} holds a number twice: {values}")
    if isinstance(content["shots"], dict):
        for shots, keys in content["shots"].items():
            if keys is not None and not isinstance(keys, dict):
                raise UserError(f"{path}: shots {shots} takes config keys, but holds {keys!r}")
            _pairs(keys, path)


def _find_datasets(content: dict, configs: Path, path: Path) -> None:
    """Put names in place of paths, and the files by these names under ``dataset_files``."""
    files: dict[str, Path] = {}

    def named(dataset: str) -> str:
        if dataset.endswith((".yaml", ".yml")):
            file = _find_file(dataset, configs, path)
            if not file.is_file():
                raise UserError(f"{path}: there is no dataset configuration file {file}")
        else:
            _check_name("dataset", dataset, configs / "datasets", path)
            file = configs / "datasets" / f"{dataset}.yaml"
        if (other := files.setdefault(file.stem, file)).resolve() != file.resolve():
            raise UserError(
                f"{path}: the runs on {other} and {file} would share folders; rename one file"
            )
        return file.stem

    content["datasets"] = [named(str(dataset)) for dataset in content["datasets"]]
    source = content.get("source") or {}
    if source.get("dataset"):
        content["source"] = {**source, "dataset": named(str(source["dataset"]))}
    content["dataset_files"] = files


def _find_file(name: str, configs: Path, path: Path) -> Path:
    """A file that a sweep's YAML names: beside it, in the current folder or beside ``configs``."""
    files = [folder / Path(name).expanduser() for folder in (path.parent, Path(), configs.parent)]
    return next((file for file in files if file.is_file()), files[-1])


def _check_name(kind: str, name: str, folder: Path, path: Path) -> None:
    """Refuse a name without a YAML file in a folder."""
    known = sorted(file.stem for file in folder.glob("*.yaml"))
    if name not in known:
        raise UserError(f"{path}: {unknown_name(kind, name, known)}")


def _checked_method(name: str, method: Any, configs: Path, path: Path) -> dict[str, Any]:
    """The keys of a method."""
    where = f"{path}: method {name}: "
    method = check_mapping(method, METHOD_KEYS, "method key", where)
    for key in ("trainer", "config"):
        if not method.get(key):
            raise UserError(f"{where}{key} is missing or empty")
    file = _find_file(method["config"], configs, path)
    if not file.is_file():
        near = sorted(other.name for other in file.parent.glob("*.yaml"))
        held = f"; {file.parent} holds {', '.join(near)}" if near else ""
        raise UserError(f"{where}there is no configuration file {file}{held}")
    _pairs(method.get("opts"), path)
    return {**method, "config": str(file)}


def _checked_report(content: dict, path: Path) -> dict[str, Any]:
    """The files of the report, and what follows ± in its table."""
    found = check_mapping(content.get("report", {}), REPORT_KEYS, "report key", f"{path}: ")
    report = {"spread": "std", **found}
    if report["spread"] not in SPREADS:
        raise UserError(f"{path}: {unknown_name('spread', report['spread'], SPREADS)}")
    return report


def _chosen(methods: dict[str, dict], wanted: str, path: Path) -> dict[str, dict]:
    """The methods to run, in the order of the YAML."""
    if wanted == "all":
        return methods
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    for name in names:
        if name not in methods:
            raise UserError(f"{path}: {unknown_name('method', name, methods)}")
    chosen = {
        name: method
        for name, method in methods.items()
        if (name in names if wanted else not method.get("optional"))
    }
    if not chosen:
        raise UserError(f"{path}: no method is to be run; name some of {', '.join(methods)}")
    return chosen


def _pairs(keys: dict | None, path: Path) -> list[str]:
    """``KEY VALUE ...`` of a mapping."""
    try:
        return _checked_overrides(override_words(keys))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _checked_runs(content: dict, output: Path, shared: list[str], path: Path) -> list[PlannedRun]:
    """All runs; one whose test its training makes impossible is refused."""
    runs = grid_runs(content, output, shared)
    for run in runs:
        check_fitting(content.get("protocol"), run, path)
    return runs


def _checked_overrides(words: Sequence[str]) -> list[str]:
    if len(words) % 2:
        raise UserError(f"overrides come in pairs KEY VALUE, but {words[-1]!r} has no value")
    for key in words[::2]:
        if key in SET_BY_SWEEP:
            raise UserError(f"a sweep sets {key} itself; change its YAML instead")
    return list(words)
