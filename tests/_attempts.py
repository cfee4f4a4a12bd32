"""What workers of a pool may be asked to do; other processes import it from here."""

import os
import signal
import time

from results.record import Interrupted
from sweeps.events import RunOutcome


def attempt(run):
    """Note the call in the run's folder, then do what the run's note says."""
    run.folder.mkdir(parents=True, exist_ok=True)
    with (run.folder / "calls").open("a") as file:
        file.write(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\n")
    first = len(calls(run)) == 1
    if run.note == "die" or (run.note == "die once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if run.note == "busy once" and first:
        return RunOutcome("busy")
    if run.note == "fail":
        return RunOutcome("failed", error="no luck")
    if run.note == "wait":
        return _wait(run)
    return RunOutcome("complete", seconds=1.0)


def _wait(run):
    def stop(signum, frame):
        raise Interrupted

    signal.signal(signal.SIGTERM, stop)
    try:
        time.sleep(60)
    except (Interrupted, KeyboardInterrupt):
        (run.folder / "stopped").touch()
        raise
    return RunOutcome("complete")


def calls(run):
    """A line per call."""
    return (run.folder / "calls").read_text().splitlines()
