"""Where the runs of a sweep are done: the ``cluster`` keys of its YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dassl.utils import UserError, unknown_name

from .protocols import check_mapping

ENGINES = ("debug", "local", "slurm")
LEAST = {"workers": 0, "jobs": 1, "gpus": 0, "cpus": 1, "memory_gb": 1, "minutes": 1, "requeues": 0}


@dataclass(frozen=True)
class Cluster:
    """The keys with their default values; 0 and "" leave a choice to Slurm.

    Args:
        engine: debug (in this process), local (a pool of workers) or slurm.
        workers: local: number of processes; 0: one per GPU, or per core up to 4 without GPUs.
        together: runs that a process does at a time, sharing text passes; or auto.
        jobs: slurm: size of the array; its jobs share the runs.
        gpus, cpus, memory_gb: per job.
        minutes: time limit of a job; one that reaches it is requeued and continues.
        requeues: how often a job may run into its time limit.
        extra: other parameters of sbatch.
    """

    engine: str = ENGINES[0]
    workers: int = 0
    together: int | str = 1
    jobs: int = 1
    partition: str = ""
    gpus: int = 0
    cpus: int = 0
    memory_gb: int = 0
    minutes: int = 60
    requeues: int = 10
    extra: dict[str, Any] = field(default_factory=dict)


KINDS = {name: type(value) for name, value in vars(Cluster()).items()} | {"together": (int, str)}


def read_cluster(content: Any, where: str) -> Cluster:
    """The checked keys of a sweep's YAML.

    Args:
        where: what messages start with.

    Raises:
        UserError: an unknown key, or a value that it does not take.
    """
    found = check_mapping(content, KINDS, "cluster key", where)
    for key, least in LEAST.items():
        if found.get(key, least) < least:
            raise UserError(f"{where}{key} takes a number from {least}; got {found[key]}")
    cluster = Cluster(**found)
    if cluster.engine not in ENGINES:
        raise UserError(f"{where}{unknown_name('engine', cluster.engine, ENGINES)}")
    return cluster
