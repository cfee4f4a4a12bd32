"""All checks that need a GPU, within a time limit: every method, a profile, the speed of steps.

    benchmarks/gpu_check.sh           # on a GPU; less than six minutes
    benchmarks/gpu_check.sh --small   # in miniature on a CPU, to see that the command works

Four parts, each with a table (Markdown) and numbers (JSON) in the folder of results: ``checks``
(``benchmarks/_device_checks.py``), ``graphs`` (``benchmarks/_graphs.py``), ``profile``
(``benchmarks/_profile.py``) and ``speed`` (``benchmarks/_speed.py``). A part that exceeds its
time is stopped; its finished rows are kept.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks._progress import Report, elapsed, say, table
from benchmarks._workers import ROOT, shared_out

SHARES = {
    "checks": 0.55,
    "graphs": 0.3,
    "profile": 0.3,
    "speed": 1.0,
}  # of the time that is left, at most
GRACE = 15.0  # seconds that a part is given to end by itself
HEADER = ("method", "check", "", "s", "")
PRETRAIN = "from clip import load_backbone; load_backbone('tiny')"


def check_devices(out: Path, seconds: float, small: bool, chosen: Sequence[str] = ()) -> bool:
    """Do the checks of every case in several processes at once; whether all went well.

    Args:
        seconds: what is not done after so long counts as failed.
        chosen: only cases whose names begin with one of these; empty for all.
    """
    end = elapsed() + seconds
    few_threads = {**os.environ, "OMP_NUM_THREADS": "2"}  # more are slower on so small a model
    subprocess.run([sys.executable, "-c", PRETRAIN], cwd=ROOT, env=few_threads, check=True)
    from benchmarks._device_cases import every_case  # here, since it loads every method

    names = [case.name for case in every_case(small) if case.name.startswith(tuple(chosen) or "")]
    at_once = 2 if small else min(12, max(2, (os.cpu_count() or 2) - 4))
    each = -(-len(names) // at_once)  # starting a process takes longer than a case
    groups = -(-len(names) // each)
    names = [name for start in range(groups) for name in names[start::groups]]  # methods first
    say(f"checks: {len(names)} cases, {at_once} processes")
    report, rows = Report(out, "checks", "Checks of every method"), []
    with tempfile.TemporaryDirectory() as scratch:
        for row in shared_out(names, Path(scratch), end - elapsed(), at_once, each, small):
            rows.append(row)
            say(f"{row['case']}: {row['check']}: {_verdict(row)} {row['note']}")
            save_checks(report, rows)
    print(f"\n{save_checks(report, rows)}", flush=True)
    return bool(rows) and all(row["ok"] for row in rows)


def save_checks(report: Report, rows: list[dict]) -> str:
    """Write what failed, a grid of methods and checks, and every check; the first two returned."""
    bad = [row for row in rows if not row["ok"]]
    text = f"{len(rows)} checks, {len(bad)} failed.\n\n"
    if bad:
        text += table(HEADER, [_cells(row) for row in bad]) + "\n"
    checks = list(dict.fromkeys(row["check"] for row in rows))
    grid: dict[str, dict[str, str]] = {}
    for row in rows:
        grid.setdefault(row["case"], {})[row["check"]] = _verdict(row)
    lines = [(case, *(found.get(c, "") for c in checks)) for case, found in sorted(grid.items())]
    text += table(("method", *checks), lines)
    every = sorted(rows, key=lambda row: row["case"])
    report.save(f"{text}\n{table(HEADER, [_cells(row) for row in every])}", rows)
    return text


def _cells(row: dict) -> tuple[str, ...]:
    return row["case"], row["check"], _verdict(row), f"{row['seconds']:.1f}", row["note"]


def _verdict(row: dict) -> str:
    return "ok" if row["ok"] else "FAILED"


def run_part(name: str, out: Path, seconds: float, small: bool) -> bool:
    """A part in a process of its own, which gets its time as an argument; whether it went well."""
    command = [sys.executable, "-u", "-m", f"benchmarks._{name}", str(out), str(seconds)]
    command += ["--small"] if small else []
    try:
        code = subprocess.run(command, cwd=ROOT, timeout=seconds + GRACE).returncode
    except subprocess.TimeoutExpired:
        say(f"{name}: cut off, no time left")
        return False
    if code:
        say(f"{name}: FAILED with exit code {code}")
    return code == 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/gpu_check.sh")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("output/gpu_check"))
    parser.add_argument("--small", action="store_true", help="in miniature, also without a GPU")
    parser.add_argument("--deadline", type=float, default=345, help="seconds for everything")
    parser.add_argument("--only", default=",".join(SHARES), help="parts, with commas")
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        help="only checks of cases whose names begin so; may be given several times",
    )
    args = parser.parse_args(arguments)
    args.parts = args.only.split(",")
    for name in args.parts:
        if name not in SHARES:
            parser.error(f"no part named {name!r}; known: {', '.join(SHARES)}")
    return args


def main(arguments: list[str] | None = None) -> int:
    """Do the parts one after the other; 1 if something failed, 2 without a GPU to look at."""
    args = parse(arguments)
    elapsed()  # begins
    import torch  # here, so that the time it takes to load counts

    if not (torch.cuda.is_available() or args.small):
        print("there is no GPU that PyTorch can use; --small does it in miniature", file=sys.stderr)
        return 2
    out, well = args.folder.resolve(), True
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    say(f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}, {gpu}")
    for name in args.parts:
        last = name == args.parts[-1]
        seconds = (args.deadline - elapsed()) * (1 if last else SHARES[name])
        if seconds <= 0:
            say(f"{name}: not begun, no time left")
            well = False
        elif name == "checks":
            well = check_devices(out, seconds, args.small, args.case) and well
        else:
            well = run_part(name, out, seconds, args.small) and well
    say(f"{'all went well' if well else 'something FAILED'}; tables are in {out}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
