"""How fast the command line answers, beside the time that importing torch alone takes.

python -m benchmarks startup
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks._sides import row

ROOT = Path(__file__).parent.parent
IMPORT_TORCH = ("-c", "import torch")
COMMANDS = {
    "train.py --help": ("train.py", "--help"),
    "train.py --list": ("train.py", "--list"),
    "train.py with an unknown trainer": ("train.py", "--trainer", "COOP"),
    "sweep.py --dry-run": ("sweep.py", "configs/sweeps/demo.yaml", "--dry-run"),
    "parse_test_res.py --help": ("parse_test_res.py", "--help"),
}


def run(small: bool = False) -> list[dict]:
    """A row per command; the naive side imports torch and does nothing."""
    times = 1 if small else 5
    torch = seconds(IMPORT_TORCH, times)
    notes = f"beside `import torch`; the fastest of {times}"
    return [row(name, torch, seconds(words, times), notes) for name, words in COMMANDS.items()]


def seconds(words: tuple[str, ...], times: int) -> float:
    """The fastest of several starts of Python with these arguments."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, check=False)
        found.append(time.perf_counter() - start)
    return min(found)
