"""How much memory a run may still take."""

from __future__ import annotations

import os
from pathlib import Path

import torch

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes that can still be allocated on a device, without what others hold.

    On the CPU, the least of what the system says is available and what the control group (a
    container, a Slurm job) leaves.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([_available(), *_left_in_group()])


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
