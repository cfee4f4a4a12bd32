"""The peak of memory of each run of a process."""

import numpy as np
import pytest

from dassl.utils import peak_memory
from dassl.utils.lockstep import Lockstep
from dassl.utils.peak_memory import PeakMemory

LARGE = 200 * 2**20  # bytes


@pytest.mark.skipif(not peak_memory._reset_process(), reason="the peak cannot be reset here")
def test_an_earlier_run_does_not_count():
    first = PeakMemory()
    np.ones(LARGE, dtype=np.uint8)  # freed at once
    peak = first.measured("cpu")["peak_memory"]
    second = PeakMemory()
    assert second.measured("cpu")["peak_memory"] < peak - LARGE / 2


def test_where_it_cannot_be_reset_only_the_first_run_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(peak_memory, "CLEAR", tmp_path / "none" / "clear_refs")
    monkeypatch.setattr(PeakMemory, "_measured_before", False)
    assert PeakMemory().measured("cpu")["peak_memory"] > 0
    assert PeakMemory().measured("cpu") == {}


def test_runs_side_by_side_are_not_measured():
    with Lockstep() as lockstep:
        lockstep.start("run", lambda: PeakMemory().measured("cuda"))
        (ended,) = lockstep.round()
    assert ended.error is None and ended.result == {}
