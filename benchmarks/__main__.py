"""All benchmarks in one command: tables of naive and own times, in Markdown and as JSON.

    python -m benchmarks all        # every suite
    python -m benchmarks small      # every suite in miniature
    python -m benchmarks text step  # some; --small for these in miniature

A suite is a module of this folder with ``run(small) -> list of rows``.
"""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import re
import sys
import time
from pathlib import Path

from dassl.utils import unknown_name, write_json
from dassl.utils.command_line import Parser, run_program


def suites() -> list[str]:
    """Names of the modules that define ``run``; none is imported."""
    files = Path(__file__).parent.glob("[!_]*.py")
    defines_run = re.compile(r"^def run\(", re.MULTILINE)
    return sorted(file.stem for file in files if defines_run.search(file.read_text("utf-8")))


def conditions() -> dict:
    """Where and with what the numbers were taken."""
    import open_clip
    import torch

    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "processor": platform.processor() or platform.machine(),
        "threads": int(os.environ["BENCHMARK_THREADS"]),
        "load": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip": open_clip.__version__,
        },
    }


def show(suite: str, rows: list[dict], seconds: float) -> None:
    """A Markdown table."""
    print(f"\n### {suite} ({seconds:.0f} s)\n\n| | naive | ours | ratio | |\n|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['what']} | {row['naive']:.3f} s | {row['ours']:.3f} s "
            f"| **{row['ratio']:.1f}x** | {row['notes']} |",
            flush=True,
        )


def main(arguments: list[str] | None = None) -> int:
    """Run the suites; the exit code.

    Raises:
        UserError: there is no suite of that name.
    """
    parser = Parser(
        prog="python -m benchmarks",
        description=__doc__,
    )
    parser.add_argument("suites", nargs="+", help=f"all, small, or {', '.join(suites())}")
    parser.add_argument("--small", action="store_true", help="in miniature, to see that it works")
    cores = os.cpu_count() or 1
    words = f"threads of torch (default {cores}, the cores)"
    parser.add_argument("--threads", type=int, default=cores, metavar="N", help=words)
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: CPU time, for a busy machine"
    )
    out = Path("output/benchmarks.json")
    parser.add_argument(
        "--out", type=Path, default=out, metavar="FILE", help=f"JSON to write (default {out})"
    )
    args = parser.parse_args(arguments)
    known = suites()
    chosen = known if set(args.suites) & {"all", "small"} else args.suites
    if unknown := sorted(set(chosen) - set(known)):
        raise unknown_name("suite", unknown[0], ["all", "small", *known])
    import torch  # only now: --help and mistakes are answered without it

    os.environ["BENCHMARK_THREADS"] = str(args.threads)
    os.environ["BENCHMARK_CLOCK"] = args.clock
    torch.set_num_threads(args.threads)
    content = {"conditions": conditions(), "suites": {}}
    small = args.small or "small" in args.suites
    print(f"{'In miniature. ' if small else ''}{content['conditions']}")
    for name in chosen:
        start = time.perf_counter()
        rows = importlib.import_module(f"benchmarks.{name}").run(small)
        show(name, rows, time.perf_counter() - start)
        content["suites"][name] = rows
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(content, args.out)
    print(f"\nwritten to {args.out}; load now {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
