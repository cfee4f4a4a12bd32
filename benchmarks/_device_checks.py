"""Trains, tests, interrupts, resumes and evaluates methods on a GPU, and compares with the CPU.

    python -m benchmarks._device_checks FOLDER RESULTS [--small] CASE...

runs the checks of some cases of ``benchmarks/_device_cases.py``, with runs under FOLDER, and adds
a line of JSON to the file RESULTS after each. A failed check does not stop the others.

The distance of two sets of learned tensors is divided by their change between the first and the
last epoch. In this unit rounding is small, and a different gradient is not.
"""

from __future__ import annotations

import argparse
import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

import train
from benchmarks._device_cases import Case, every_case
from benchmarks.gpu import precision_key
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import load_checkpoint

AGAIN = 1e-3  # how far apart learned tensors may be, of the way they went: if stopped meanwhile
OTHERWISE = 1e-2  # with images encoded elsewhere, or in other batches
IMAGES = 1  # by how many images the accuracy of a task may differ in fp32
HALF = 0.2  # how far learned tensors may be apart in half precision, of the way they went
POINTS = 3.0  # and the mean accuracy, in points: where class prompts are nearly equal, one task's
# accuracy in fp16 differs by more, even of the same learned tensors
SCALE = "256"  # of the loss under amp, so that no step is skipped: the default skips the first ones


class CheckError(Exception):
    """A result differs from the expected one."""


class Checks:
    """The checks of one case; each is a method that returns a note or raises.

    Args:
        case: what to run. folder: of its runs. features: where stored features lie.
    """

    def __init__(self, case: Case, folder: Path, features: Path):
        self.case, self.folder, self.features = case, folder, features
        self.gpu = torch.cuda.is_available()

    def fp32(self) -> str:
        """Train and test in fp32 on images; something is learned."""
        content = self._train("fp32")
        last = learned(self.folder / "fp32")
        if self._way() == 0 and last:
            raise CheckError("nothing was learned between the first and the last epoch")
        return f"mean over the tasks {_mean(content):.1f} %, {len(last)} learned tensors"

    def stored_features(self) -> str:
        """Training on stored image features learns the same."""
        content = self._train("stored", "FEATURES.MODE", "full")
        return self._like_fp32("stored", content, OTHERWISE)

    def cpu(self) -> str:
        """Training on the CPU learns the same."""
        more = () if self.case.exact else ("TEST.NO_TEST", "True")
        content = self._train("cpu", *more, "USE_CUDA", "False")
        return self._like_fp32("cpu", content, OTHERWISE)

    def goes_on(self) -> str:
        """A run that is interrupted after the first epoch and resumed learns the same."""
        stop = _stopping(TRAINER_REGISTRY.get(self.case.trainer))
        try:
            with stop:
                self._train("stopped")
        except KeyboardInterrupt:
            content = self._train("stopped")
            if not content["run"]["resumed"]:
                raise CheckError("the run did not go on where it stopped") from None
            return self._like_fp32("stopped", content, AGAIN)
        if learned(self.folder / "fp32", last=False):
            raise CheckError("the run was not stopped")
        return "has no epochs to stop between"

    def checkpoint(self) -> str:
        """An evaluation of the checkpoint has the accuracies of the training run."""
        content = self._train("evaluated", flags=self._from_fp32())
        return self._like_accuracies(content)

    def checkpoint_on_the_cpu(self) -> str:
        """The checkpoint, evaluated on the CPU."""
        content = self._train("evaluated-cpu", "USE_CUDA", "False", flags=self._from_fp32())
        return self._like_accuracies(content)

    def fp16(self) -> str:
        """In fp16, on stored features: accuracies are nearly those of fp32."""
        return self._half("fp16", "full")

    def amp(self) -> str:
        """In mixed precision, on images."""
        note = self._half("amp", "off", "OPTIM.LOSS_SCALE", SCALE)
        skipped = self._record("amp")["run"].get("skipped_steps", 0)
        if skipped:
            raise CheckError(f"{skipped} steps were skipped")
        return note

    # ------------------------------------------------------------------ what they share

    def _half(self, precision: str, features: str, *opts: str) -> str:
        content = self._train(precision, "FEATURES.MODE", features, *opts, precision=precision)
        wanted = precision if self.gpu else "fp32"
        if content["run"]["precision"] != wanted:
            raise CheckError(f"computed in {content['run']['precision']}, not in {wanted}")
        points = abs(_mean(content) - _mean(self._record("fp32")))
        if points > POINTS:
            raise CheckError(f"the mean accuracy is {points:.1f} points apart, over {POINTS:g}")
        apart = distance(learned(self.folder / precision), learned(self.folder / "fp32"))
        apart /= self._way() or 1.0
        if not apart <= HALF:  # not a number, too
            raise CheckError(f"learned tensors are {apart:.1e} of their way apart, over {HALF:g}")
        return f"mean accuracy {points:.1f} points apart, tensors {apart:.1e} of their way apart"

    def _way(self) -> float:
        """How far the learned tensors of the fp32 run went; their size if in one go; 0 if none."""
        last = learned(self.folder / "fp32")
        first = learned(self.folder / "fp32", last=False)
        return distance(last, first) if first else norm(last)

    def _from_fp32(self) -> tuple[str, ...]:
        """Flags that evaluate the fp32 run; what learns nothing has no checkpoint to name."""
        there = learned(self.folder / "fp32")
        return ("--eval-only", *(("--model-dir", str(self.folder / "fp32")) if there else ()))

    def _train(
        self, name: str, *opts: str, precision: str = "fp32", flags: tuple[str, ...] = ()
    ) -> dict:
        """The record of a run of train.py in this process."""
        words = ["--trainer", self.case.trainer, "--seed", "1", "--quiet", *flags]
        words += ["--output-dir", str(self.folder / name), *self.case.opts]
        words += ["FEATURES.DIR", str(self.features), *opts]
        content = train.main(
            train.parse_args([*words, precision_key(self.case.trainer, *words[2:]), precision])
        )
        if content["status"] != "complete":
            raise CheckError(f"the run is {content['status']}")
        on_cpu = content["run"]["device"] == "cpu"
        if on_cpu != (not self.gpu or "USE_CUDA" in opts):
            raise CheckError(f"computed on {content['run']['device']}")
        return content

    def _like_fp32(self, name: str, content: dict, bound: float) -> str:
        last = learned(self.folder / "fp32")
        apart = distance(learned(self.folder / name), last) / (self._way() or 1.0)
        if not apart <= bound:  # not a number, too
            raise CheckError(f"learned tensors are {apart:.1e} of their way apart, over {bound:g}")
        note = f"tensors {apart:.1e} of their way apart" if last else "nothing is learned"
        return f"{note}, {self._like_accuracies(content)}" if content["tasks"] else note

    def _record(self, name: str) -> dict:
        return json.loads((self.folder / name / "results.json").read_text(encoding="utf-8"))

    def _like_accuracies(self, content: dict) -> str:
        """The largest difference to fp32 in images of a task, and how many there are."""
        expected = self._record("fp32")["tasks"]
        found = content["tasks"]
        if len(found) != len(expected) or not found:
            raise CheckError(f"{len(found)} tasks were tested, not {len(expected)}")
        worst, total = max(
            (abs(f["value"] - e["value"]) / 100 * e["total"], e["total"])
            for f, e in zip(found, expected, strict=True)
        )
        if self.case.exact and not worst <= IMAGES + 0.01:
            raise CheckError(f"accuracy is {worst:.1f} of {total} images apart, over {IMAGES}")
        return f"accuracy {worst:.1f} of {total} images apart"


CHECKS: dict[str, Callable[[Checks], str]] = {
    "fp32": Checks.fp32,
    "stored features": Checks.stored_features,
    "CPU": Checks.cpu,
    "goes on": Checks.goes_on,
    "checkpoint": Checks.checkpoint,
    "checkpoint on the CPU": Checks.checkpoint_on_the_cpu,
    "fp16": Checks.fp16,
    "amp": Checks.amp,
}


def _mean(content: dict) -> float:
    """The mean of the tasks' accuracies in percent, from a record."""
    return sum(task["value"] for task in content["tasks"]) / len(content["tasks"])


def _stopping(trainer: type):
    """A patch under which a training is interrupted after its first epoch."""
    whole = trainer.after_epoch

    def after_epoch(self):
        whole(self)
        if self.epoch == 0:
            raise KeyboardInterrupt

    return mock.patch.object(trainer, "after_epoch", after_epoch)


def learned(folder: Path, last: bool = True) -> dict[str, torch.Tensor]:
    """The tensors in a run's checkpoints of its last epoch, or of the first if there are more."""
    found = {}
    for place in sorted({path.parent for path in Path(folder).rglob("model.pth.tar-*")}):
        epochs = sorted(int(p.name.rsplit("-", 1)[1]) for p in place.glob("model.pth.tar-*"))
        if not last and len(epochs) == 1:
            continue
        state = load_checkpoint(place / f"model.pth.tar-{epochs[-1 if last else 0]}")["state_dict"]
        found |= {f"{place.relative_to(folder)} {name}": t.double() for name, t in state.items()}
    return found


def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """How far two sets of tensors are apart, as one vector each.

    Raises:
        CheckError: they have other names.
    """
    if left.keys() != right.keys():
        raise CheckError(f"learned tensors {sorted(left)}, expected {sorted(right)}")
    return norm({name: left[name] - right[name] for name in left})


def norm(tensors: dict[str, torch.Tensor]) -> float:
    """The length of a set of tensors as one vector; 0 for none."""
    return sum(float(t.square().sum()) for t in tensors.values()) ** 0.5


def check_case(case: Case, folder: Path, features: Path):
    """Yield a row per check: case, check, ok, seconds, note, and of a failure its traceback."""
    checks = Checks(case, folder, features)
    for name in case.checks or CHECKS:
        began = time.perf_counter()
        row = {"case": case.name, "check": name, "ok": True, "note": "", "traceback": ""}
        try:
            row["note"] = CHECKS[name](checks)
        except Exception as error:
            said = str(error).strip() or "without a message"
            row |= {"ok": False, "note": f"{type(error).__name__}: {said.splitlines()[-1][:300]}"}
            row["traceback"] = traceback.format_exc()[-4000:]
        yield {**row, "seconds": round(time.perf_counter() - began, 2)}


def main() -> None:
    """Do the checks of the cases that are named, into a file of JSON lines."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks._device_checks")
    parser.add_argument("folder", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = {case.name: case for case in every_case(args.small)}
    with args.results.open("a", encoding="utf-8") as file:
        for number, name in enumerate(args.cases):
            place = args.folder / f"{args.results.stem}-{number}"
            for row in check_case(known[name], place, args.folder / "features"):
                file.write(json.dumps(row) + "\n")
                file.flush()


if __name__ == "__main__":
    main()
