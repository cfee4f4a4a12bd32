"""The inert reader: tensors come out, nothing in a file is run, broken files get one message."""

import builtins
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from dassl.utils import UserError, inert_pickle
from dassl.utils.inert_pickle import load_inert


def write(path, pickled: bytes, records=(("data/0", b"\0" * 8),), method=zipfile.ZIP_STORED):
    """A file of torch.save's form around a pickle."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, content in records:
            archive.writestr(f"x/{name}", content)
    return path


class Calls:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_tensors_of_every_kind(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    state = OrderedDict(
        half=torch.randn(3, 2).half(),
        transposed=base.T,
        part=base[1:3, 2:],
        parameter=nn.Parameter(torch.ones(2)),
        numbers=torch.tensor([1, -2, 3]),
        empty=torch.zeros(0, 64),
        scalar=torch.tensor(2.5),
        brain=torch.ones(2, dtype=torch.bfloat16),
        yes=torch.tensor([True, False]),
    )
    torch.save({"state_dict": state, "epoch": 7, "val_result": None}, tmp_path / "x")
    found = load_inert(tmp_path / "x")
    assert found["epoch"] == 7 and found["val_result"] is None
    assert list(found["state_dict"]) == list(state)
    for key, tensor in state.items():
        assert found["state_dict"][key].dtype == tensor.dtype
        assert torch.equal(found["state_dict"][key], tensor), key


HOSTILE = {
    "reduce": lambda mark: Calls(os.system, f"touch {mark}"),
    "exec": lambda mark: Calls(exec, f"open({str(mark)!r}, 'w')"),
    "open": lambda mark: Calls(open, str(mark), "w"),
    "process": lambda mark: Calls(subprocess.check_output, ["touch", str(mark)]),
    "eval": lambda mark: Calls(builtins.eval, f"open({str(mark)!r}, 'w')"),
    "nested": lambda mark: [{"a": (Calls(os.mkdir, str(mark)),)}],
    "torch": lambda mark: Calls(torch.save, {}, str(mark)),
}


@pytest.mark.parametrize("where", ["scheduler", "state_dict"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("kind", HOSTILE)
def test_nothing_in_a_file_is_run(tmp_path, kind, protocol, where):
    mark = tmp_path / "mark"
    trap = HOSTILE[kind](mark)
    content = {"state_dict": {}, "epoch": 3, "scheduler": {}}
    content[where]["trap"] = trap
    pickled = pickle.dumps(content, protocol)
    found = load_inert(write(tmp_path / "x", pickled))
    assert found["epoch"] == 3 and found["state_dict"] == {}
    assert not mark.exists()
    pickle.loads(pickled)  # the trap is one
    assert mark.exists()


@pytest.mark.parametrize("name", ["_rebuild_tensor_v2", "_rebuild_parameter"])
def test_functions_of_torch_cannot_be_changed(tmp_path, name):
    """BUILD sets attributes of whatever it is given, also of a function."""
    function = f"ctorch._utils\n{name}\n(N}}S'mine'\nI1\nstb".encode()
    pickled = b"\x80\x02}S'state_dict'\n" + function + b"s."
    with pytest.raises(UserError, match="cannot read the checkpoint"):
        load_inert(write(tmp_path / "x", pickled))
    assert not hasattr(getattr(torch._utils, name), "mine")
    pickle.loads(pickled)  # an ordinary load lets it
    assert getattr(torch._utils, name).mine == 1
    del getattr(torch._utils, name).mine


def test_objects_become_stand_ins_without_content(tmp_path):
    model = nn.Linear(2, 2)
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 5)
    torch.save({"state_dict": model.state_dict(), "scheduler": sched}, tmp_path / "x")
    found = load_inert(tmp_path / "x")
    assert torch.equal(found["state_dict"]["weight"], model.weight)
    assert isinstance(found["scheduler"], dict) and not found["scheduler"]
    assert not vars(found["scheduler"])


def tensor_pickle(storage="FloatStorage", key="0", size=(2,), stride=(1,), offset=0):
    """A state dict of one tensor, by hand."""
    save = "S'x'\nctorch._utils\n_rebuild_tensor_v2\n"
    pid = f"(S'storage'\nctorch\n{storage}\nS'{key}'\nS'cpu'\nI2\nt"
    numbers = [f"({''.join(f'I{n}{chr(10)}' for n in part)}t" for part in (size, stride)]
    rebuilt = f"({pid}QI{offset}\n{''.join(numbers)}I00\nNtR"
    return f"\x80\x02}}S'state_dict'\n}}{save}{rebuilt}ss.".encode("latin-1")


def test_a_tensor_by_hand(tmp_path):
    found = load_inert(write(tmp_path / "x", tensor_pickle()))
    assert found["state_dict"]["x"].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "1"}, "no item named 'x/data/1'"),
        ({"key": "../../x"}, "no item named"),
        ({"size": (3,)}, r"a tensor of shape \(3,\) has only 2 values"),
        ({"size": (2,), "offset": 1}, "out of bounds"),
        ({"size": (1 << 40,), "stride": (0,)}, "has only 2 values"),
        ({"size": (2,), "stride": (-1,)}, "[Nn]egative"),
        ({"storage": "EvilStorage"}, "no storage of a known type"),
    ],
)
def test_tensors_that_do_not_fit_their_file(tmp_path, change, message):
    path = write(tmp_path / "x", tensor_pickle(**change))
    with pytest.raises(UserError, match=rf"cannot read the checkpoint .*x: .*{message}"):
        load_inert(path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda p: None, "there is no checkpoint"),
        (lambda p: p.mkdir(), "cannot read the checkpoint"),
        (lambda p: p.write_bytes(b""), "damaged, or written by torch before 1.6"),
        (
            lambda p: torch.save({"state_dict": {}}, p, _use_new_zipfile_serialization=False),
            "before 1.6; load it there",
        ),
        (lambda p: write(p, b"N.", method=zipfile.ZIP_DEFLATED), "it is compressed"),
        (lambda p: zipfile.ZipFile(p, "w").writestr("a", "b"), "not one of torch.save"),
        (lambda p: write(p, b"N.", [("byteorder", b"big")]), "big-endian"),
        (lambda p: write(p, b"N."), "holds no dict named state_dict"),
        (lambda p: write(p, b"}S'state_dict'\nNs."), "holds no dict named state_dict"),
        (lambda p: write(p, b"(((("), "cannot read the checkpoint"),
        (lambda p: write(p, b"Nr\xff\xff\xff\x7f."), "more memory than it can use"),
    ],
)
def test_files_that_are_no_checkpoint(tmp_path, how, message):
    how(tmp_path / "x")
    with pytest.raises(UserError, match=message):
        load_inert(tmp_path / "x")


def whole_file(folder) -> bytes:
    optim = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(optim, 5)
    content = {"state_dict": {"ctx": torch.ones(2, 3)}, "optimizer": sched, "epoch": 1}
    torch.save(content, folder / "whole")
    with zipfile.ZipFile(folder / "whole") as archive:
        return archive.read("whole/data.pkl")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_pickles_end_in_a_result_or_a_message(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    pickled = bytearray(whole_file(folder))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(pickled) - 1))
        pickled[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del pickled[data.draw(st.integers(1, len(pickled))) :]
    before = set(vars(inert_pickle))
    try:
        found = load_inert(write(folder / "x", bytes(pickled), [("data/0", b"\0" * 24)]))
    except UserError as error:
        assert "\n" not in str(error) and str(folder / "x") in str(error)
    else:
        assert all(torch.is_tensor(v) for v in found["state_dict"].values())
    assert set(vars(inert_pickle)) == before
