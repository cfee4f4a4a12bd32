import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from dassl.utils import (
    UserError,
    load_checkpoint,
    load_pretrained_weights,
    save_checkpoint,
)


def test_round_trip(tmp_path, capsys):
    state = {"state_dict": nn.Linear(2, 3).state_dict(), "epoch": 5, "val_result": np.float64(1.5)}
    path = save_checkpoint(state, tmp_path / "model")
    assert path == str(tmp_path / "model" / "model.pth.tar-5") and path in capsys.readouterr().out
    assert (tmp_path / "model" / "checkpoint").read_text().strip() == "model.pth.tar-5"
    loaded = load_checkpoint(path)
    assert loaded["epoch"] == 5 and loaded["val_result"] == 1.5
    torch.testing.assert_close(dict(loaded["state_dict"]), dict(state["state_dict"]))
    assert sorted(os.listdir(tmp_path / "model")) == ["checkpoint", "model.pth.tar-5"]


def test_names_best_and_module_prefix(tmp_path):
    state = {"state_dict": {"module.weight": torch.ones(1)}, "epoch": 1}
    path = save_checkpoint(state, tmp_path, is_best=True, model_name="mine.tar")
    assert path.endswith("mine.tar")
    assert list(load_checkpoint(tmp_path / "model-best.pth.tar")["state_dict"]) == ["weight"]
    assert list(state["state_dict"]) == ["module.weight"]  # the caller's is not touched
    kept = save_checkpoint(state, tmp_path, remove_module_from_keys=False)
    assert list(load_checkpoint(kept)["state_dict"]) == ["module.weight"]


def test_objects_are_refused_and_the_old_file_stays(tmp_path):
    path = save_checkpoint({"state_dict": {}, "epoch": 1}, tmp_path)
    with pytest.raises(TypeError, match="a checkpoint holds tensors, numbers"):
        save_checkpoint({"state_dict": {}, "epoch": 1, "odd": nn.Linear(1, 1)}, tmp_path)
    assert load_checkpoint(path) == {"state_dict": {}, "epoch": 1}
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".tmp")]


KILLED_WRITERS = """
import os, signal, sys, time, torch
from dassl.utils import load_checkpoint, save_checkpoint

def write_for_ever(folder):
    n = 0
    while True:
        n += 1
        state = {"state_dict": {"w": torch.full((300_000,), float(n))}, "epoch": n}
        save_checkpoint(state, folder, model_name="model.pth.tar", is_best=True)

folder = sys.argv[1]
for delay in (0.02, 0.033, 0.047, 0.06, 0.08):
    child = os.fork()
    if child == 0:
        write_for_ever(folder)
    while not os.path.exists(f"{folder}/model-best.pth.tar"):
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for name in ("model.pth.tar", "model-best.pth.tar"):
        loaded = load_checkpoint(f"{folder}/{name}")
        assert (loaded["state_dict"]["w"] == loaded["epoch"]).all(), name
    assert open(f"{folder}/checkpoint").read().strip() == "model.pth.tar"
print("whole")
"""


def test_a_kill_at_any_moment_leaves_whole_files(tmp_path):
    command = [sys.executable, "-c", KILLED_WRITERS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "whole"


def test_missing_checkpoint_shows_what_is_there(tmp_path):
    save_checkpoint({"state_dict": {}, "epoch": 50}, tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint .*tar-5; .* holds .*model\.pth\.tar-50"):
        load_checkpoint(tmp_path / "model.pth.tar-5")
    with pytest.raises(UserError, match=r"nor a folder"):
        load_checkpoint(tmp_path / "nowhere" / "model.pth.tar-5")


def test_unreadable_checkpoints(tmp_path):
    path = tmp_path / "x"
    for content in (b"", b"not a checkpoint at all", b"hello\n", b"e\n" * 9):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"cannot read the checkpoint .*x: [^0-9]") as caught:
            load_checkpoint(path)
        assert "trust" not in str(caught.value)  # torch advises to load it unsafely
    torch.save({"model": nn.Linear(1, 1)}, path)
    with pytest.raises(UserError, match="or it holds more than tensors and plain values"):
        load_checkpoint(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot read the checkpoint .*x"):
        load_checkpoint(path)
    torch.save([1], path)
    with pytest.raises(UserError, match="holds a list, not a dict"):
        load_checkpoint(path)
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        load_checkpoint(tmp_path)


def test_any_bytes_are_answered_with_a_message(tmp_path, recwarn):
    torch.save({"state_dict": {"w": torch.ones(3)}, "epoch": 1}, tmp_path / "whole")
    whole, rng = (tmp_path / "whole").read_bytes(), random.Random(0)
    for i in range(400):
        noise = rng.randbytes(60)
        place = rng.randrange(len(whole) - 60)
        kinds = (noise, b"\x80\x02" + noise, whole[:place] + noise + whole[place + 60 :])
        (tmp_path / "x").write_bytes(kinds[i % 3])
        try:
            assert isinstance(load_checkpoint(tmp_path / "x"), dict)
        except UserError as error:
            assert str(tmp_path / "x") in str(error) and "\n" not in str(error)
    assert not len(recwarn)


def test_pretrained_weights(tmp_path, capsys):
    model = nn.Linear(2, 2)
    given = {"module.weight": torch.ones(2, 2), "module.bias": torch.ones(3), "head": torch.ones(1)}
    torch.save({"state_dict": given}, tmp_path / "w")
    bias = model.bias.detach().clone()
    load_pretrained_weights(model, tmp_path / "w")
    assert (model.weight == 1).all() and (model.bias == bias).all()
    out = capsys.readouterr().out
    assert "Loaded 1 of 2 tensors" in out and "name or shape: bias, head" in out


def test_pretrained_weights_that_do_not_fit(tmp_path):
    torch.save({"other": torch.ones(2)}, tmp_path / "w")
    with pytest.raises(UserError, match=r"nothing in .*w fits the model: it holds other \(2,\)"):
        load_pretrained_weights(nn.Linear(2, 2), tmp_path / "w")


def test_any_noise_is_answered_with_the_file(tmp_path):
    path, rng = tmp_path / "noise.pt", random.Random(0)
    torch.save({"state_dict": {"w": torch.ones(3)}}, path)
    whole = path.read_bytes()
    for _ in range(400):
        cut = rng.randrange(len(whole))
        damaged = whole[:cut] + rng.randbytes(3) + whole[cut + 3 :]
        path.write_bytes(rng.choice([damaged, whole[:cut], rng.randbytes(rng.randrange(300))]))
        try:
            assert isinstance(load_checkpoint(path), dict)  # the damage missed what matters
        except UserError as error:
            assert str(path) in str(error)
