"""How much memory a run may still take."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
STATM = Path("/proc/self/statm")


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that can still be allocated on a device, without what others hold.

    On the CPU, the least of what the system says is available, what the control group (a
    container, a Slurm job) leaves, and what this process may still map (``ulimit -v``).
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([_available(), *_left_in_group(), *_left_to_process()])


def _available() -> int:
    try:
        for line in MEMINFO.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass  # no Linux
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _left_in_group() -> list[int]:
    """What control groups of either version leave, cached files not counted; [] without a limit."""
    groups = [
        (CGROUP, "memory.max", "memory.current", "inactive_file"),
        (
            CGROUP / "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ]
    left = []
    for folder, limit, usage, cached in groups:
        try:
            room = int((folder / limit).read_text()) - int((folder / usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            left.append(max(0, room + int(stat[cached])))
        except (OSError, ValueError, KeyError):
            continue  # not this version, or no limit ("max")
    return left


def _left_to_process() -> list[int]:
    """What the limit of this process's address space leaves; [] without a limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    try:
        pages = int(STATM.read_text(encoding="utf-8").split()[0])
    except OSError:
        return [limit]  # no Linux
    return [max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))]
