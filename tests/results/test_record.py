"""How a run's record says that it ended, who is working in its folder, and what differs."""

import errno
import signal

import pytest

from dassl.config import get_cfg_default
from dassl.utils import read_json
from results.record import Busy, Interrupted, RunRecord, config_hash, is_locked
from results.settings import differences


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "interrupted"),
        (OSError(errno.EIO, "Input/output error"), "failed"),
        (SystemExit(-1), "interrupted"),  # a cluster's way to stop a job before it is requeued
        (KeyboardInterrupt(), "interrupted"),
        (ValueError("x"), "failed"),
    ],
)
def test_what_is_to_go_on_is_no_failure(tmp_path, error, status):
    record = RunRecord(tmp_path, get_cfg_default())
    with record.locked():
        record.begin(seed=1)
        with pytest.raises(type(error)), record.watched():
            raise error
    content = read_json(tmp_path / "results.json")
    assert content["status"] == status
    assert ("error" in content["run"]) == (status == "failed")


def test_who_works_in_a_folder(tmp_path):
    assert not is_locked(tmp_path / "run")
    with RunRecord(tmp_path / "run", get_cfg_default()).locked():
        assert is_locked(tmp_path / "run")
        with (
            pytest.raises(Busy, match="another process is working in"),
            RunRecord(tmp_path / "run", get_cfg_default()).locked(),
        ):
            pass
    assert not is_locked(tmp_path / "run")


def test_a_handler_that_is_there_is_left_alone(tmp_path):
    """A cluster's launcher has its own idea of what SIGTERM means."""
    heard = []
    record = RunRecord(tmp_path, get_cfg_default())
    with record.locked():
        record.begin(seed=1)
        with pytest.raises(Interrupted), record.watched():
            signal.raise_signal(signal.SIGTERM)
        before = signal.signal(signal.SIGTERM, lambda *_: heard.append(1))
        try:
            with record.watched():
                signal.raise_signal(signal.SIGTERM)
        finally:
            signal.signal(signal.SIGTERM, before)
    assert heard == [1]


def test_a_new_key_leaves_the_hash_of_older_runs():
    # of the default configuration; a new key goes into schema.NEWER or schema.NOT_HASHED
    cfg = get_cfg_default()
    assert config_hash(cfg) == "f5431b3963bf099a"
    cfg.merge_from_dict({"DATASET": {"NAME": "DigitLabels"}, "OPTIM": {"LOGIT_BIAS": -5.8}})
    cfg.INPUT.TRANSFORMS = ("normalize",)
    assert config_hash(cfg) == "f063ecf3c3ac1614"  # digit_labels.yaml of commit 032a1eb


def test_a_bias_of_zero_is_the_default_and_auto_is_not():
    default, cfg = get_cfg_default(), get_cfg_default()
    cfg.merge_from_list(["OPTIM.LOGIT_BIAS", "auto"])
    assert config_hash(cfg) != config_hash(default)
    cfg.merge_from_list(["OPTIM.LOGIT_BIAS", "0"])
    assert config_hash(cfg) == config_hash(default)


def test_differences_of_configurations():
    old = {"A": {"B": [1, 2], "C": 0.1}, "MEMBERS": [{"NAMES": ["x"]}]}
    new = {"A": {"B": (1, 2), "C": 0.1}, "MEMBERS": [{"NAMES": ("x",)}]}
    assert differences(old, new) == ""
    assert differences(old, {**new, "A": {"B": 3, "D": 4}}) == (
        "A.B was [1, 2], now 3; A.C was 0.1, now None; A.D was None, now 4"
    )
    renamed = {**new, "MEMBERS": [{"NAMES": ["y"]}]}
    assert differences(old, renamed) == "MEMBERS[0].NAMES[0] was 'x', now 'y'"
    assert differences(old, {**new, "MEMBERS": []}).startswith("MEMBERS was [{'NAMES'")
