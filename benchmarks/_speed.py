"""Steps at General-10's shape on a GPU, naive and ours, one row after the other until a deadline.

    python -m benchmarks._speed FOLDER SECONDS [--small]

The rows of NATA, CSTA and CoOp-MT are those of ``benchmarks/gpu.py``. CoOp and CoCoOp train one
task at a time, so their steps are of one: General-10's largest (397 classes) for CoOp; 100 classes
and 8 images for CoCoOp, whose naive step encodes a text per image and class (61,600 token
positions; NATA's encodes 91,707).
"""

from __future__ import annotations

import argparse
import gc
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import gpu, methods
from benchmarks._progress import Report, elapsed, say, table
from benchmarks._sides import row
from dassl.data.tasks import TaskSpace

JOINT = ("NATA", "CSTA", "CoOp-MT")
TOGETHER = (3,)  # runs side by side: the seeds of a number of shots
HEADER = ("", "naive, ms", "ours, ms", "ratio", "")
MARGIN = 1.2  # a row is begun if the time is left that the longest took, times this


def jobs(small: bool) -> dict[str, Callable[[], list[dict]]]:
    """What gives rows, by name, the most important first."""
    size = gpu.SMALL if small else gpu.FULL
    space = gpu.make_space(size.classes)
    alone = {
        "CoOp": replace(size, classes=(max(size.classes),)),
        "CoCoOp": replace(size, classes=(5 if small else 100,), batch=4 if small else 8),
    }
    found = {}
    for backbone in size.backbones:
        for name in JOINT:
            found[f"{backbone} {name}"] = _job(gpu.compare, backbone, name, size, space)
        for name, own in alone.items():
            found[f"{backbone} {name}"] = _job(compare_alone, backbone, name, own)
        found[f"{backbone} together"] = _job(compare_together, backbone, size, space)
        if backbone == size.backbones[0]:
            for method in methods.chosen(small):
                found[method] = _job(methods.compare_on_gpu, method, small)
    return found


def _job(function: Callable, *arguments: object) -> Callable[[], list[dict]]:
    return lambda: function(*arguments)


def compare_alone(backbone: str, variant: str, size: gpu.Size) -> list[dict]:
    """Rows of a method that trains one task at a time, on a task of as many classes."""
    opts = ("TRAINER.COCOOP.CHUNK", "0") if variant == "CoCoOp" else ()
    found = gpu.measure_all(backbone, variant, size, gpu.make_space(size.classes), *opts)
    rows = []
    sides = {"images": "images encoded", "warm": "warm features"}
    for side, says in (sides | {"graphed": "warm features, CUDA graphs"}).items():
        peaks = [f"{found[name][1] / 2**30:.1f}" for name in ("naive", side)]
        about = f"peak {' and '.join(peaks)} GiB; {size.classes[0]} classes, batch {size.batch}"
        what = f"{backbone.split('/')[0]} {variant}: step, {says}"
        rows.append(row(what, found["naive"][0], found[side][0], about))
    return rows


def compare_together(backbone: str, size: gpu.Size, space: TaskSpace) -> list[dict]:
    """Rows of NATA: a step of a run alone, in place of the naive side, and of one of several."""
    alone, _ = gpu.measure_together(backbone, "NATA", size, space, 1)
    rows = []
    for runs in TOGETHER:
        seconds, peak = gpu.measure_together(backbone, "NATA", size, space, runs)
        what = f"{backbone.split('/')[0]} NATA: step of a run alone, and of one of {runs} together"
        rows.append(row(what, alone, seconds, f"peak {peak / 2**30:.1f} GiB of {runs}"))
    return rows


def measure_until(report: Report, seconds: float, work: dict[str, Callable]) -> bool:
    """Do what fits the time, saving after each; whether nothing failed and nothing was left out."""
    end, longest, rows, well = elapsed() + seconds, 0.0, [], True
    for name, job in work.items():
        began = elapsed()
        if began + MARGIN * longest > end:
            new = [{"what": name, "notes": "left out: no time left"}]
        else:
            new = _rows_of(name, job)
        longest = max(longest, elapsed() - began)
        well = well and all("ours" in line for line in new)
        rows += new
        for line in new:
            say(" | ".join(_cells(line)))
        report.save(table(HEADER, [_cells(line) for line in rows]), _json(rows))
    return well


def _rows_of(name: str, job: Callable[[], list[dict]]) -> list[dict]:
    try:
        return job()
    except Exception as error:  # the other rows are wanted all the same
        said = str(error).strip().splitlines() or [""]
        return [{"what": name, "notes": f"FAILED: {type(error).__name__}: {said[-1][:300]}"}]
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _cells(line: dict) -> tuple[str, ...]:
    """A row in words; no number of the naive side means that its memory did not suffice."""
    if "ours" not in line:
        return (line["what"], "", "", "", line["notes"])
    naive, ours = line["naive"] * 1000, line["ours"] * 1000
    if math.isnan(naive):
        return (line["what"], "out of memory", f"{ours:.2f}", "", line["notes"])
    return (line["what"], f"{naive:.1f}", f"{ours:.2f}", f"{line['ratio']:.1f}x", line["notes"])


def _json(rows: list[dict]) -> list[dict]:
    """The rows with None for what is no number."""
    return [
        {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in line.items()}
        for line in rows
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure; 1 if a row failed or was left out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._speed")
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args(arguments)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"
    title = f"Steps {'in miniature' if args.small else 'at General-10’s shape'} on {where}"
    report = Report(args.folder, "speed", title)
    well = measure_until(report, args.seconds, jobs(args.small))
    print((args.folder / "speed.md").read_text(encoding="utf-8"), flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
