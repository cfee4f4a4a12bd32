import errno
import os
import random
import sys
import types

import numpy as np
import pytest
import torch

from dassl.utils import (
    AverageMeter,
    DamagedFile,
    MetricMeter,
    Registry,
    UserError,
    atomic_path,
    check_isfile,
    collect_env_info,
    count_num_param,
    counted,
    import_all,
    listdir_nohidden,
    mkdir_if_missing,
    naming_damaged,
    nearest,
    read_json,
    set_random_seed,
    setup_logger,
    size_in_words,
    unknown_name,
    write_json,
)
from dassl.utils.files import naming_full_disk


def files(folder):
    return sorted(p.name for p in folder.iterdir())


def test_atomic_path_replaces_the_file_as_a_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    for text in ("first", "second"):
        with atomic_path(target) as temporary:
            temporary.write_text(text)
            assert temporary.parent == target.parent and temporary.suffix == ".txt"
            assert not target.exists() or target.read_text() == "first"
        assert target.read_text() == text
    assert files(target.parent) == ["a.txt"]


def test_a_full_disk_is_named(tmp_path):
    where = f"No space left on device, writing to {tmp_path}"
    with pytest.raises(OSError, match=where), naming_full_disk(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError) as other, naming_full_disk(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", "another/file")
    assert str(tmp_path) not in str(other.value) and "another/file" in str(other.value)


def test_atomic_path_leaves_the_old_file_on_failure(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "old" and files(tmp_path) == ["a.txt"]


def test_atomic_path_needs_content(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert files(tmp_path) == []


def test_json_round_trip(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json({"name": "Blüte", "values": [1, None, 2.5]}, path)
    text = path.read_text(encoding="utf-8")
    assert text.endswith("}\n") and '\n  "name": "Blüte"' in text
    assert read_json(path) == {"name": "Blüte", "values": [1, None, 2.5]}


def test_json_refuses(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"value": float("nan")}, path)
    with pytest.raises(UserError, match=r"there is no file .*a\.json"):
        read_json(path)
    path.write_text('{"a": ')
    with pytest.raises(UserError, match=r"a\.json is not valid JSON"):
        read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"cannot read .*a\.json"):
        read_json(path)


def test_folders(tmp_path, capsys):
    mkdir_if_missing(tmp_path / "x" / "y")
    mkdir_if_missing(tmp_path / "x" / "y")
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).write_text("")
    assert listdir_nohidden(tmp_path) == ["a", "b", "x"]
    assert sorted(listdir_nohidden(tmp_path, sort=False)) == ["a", "b", "x"]
    assert check_isfile(tmp_path / "a") and not check_isfile(tmp_path / "x")
    assert "There is no file" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"cannot list the folder .*nowhere: No such file"):
        listdir_nohidden(tmp_path / "nowhere")


def test_seed_sets_every_generator():
    draws = []
    for _ in range(2):
        set_random_seed(7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_environment_names_versions():
    text = collect_env_info()
    assert f"torch: {torch.__version__.split('+')[0]}" in text and "Python: 3" in text


def test_count_num_param():
    model = torch.nn.Linear(3, 4)
    assert count_num_param(model) == 16
    assert count_num_param(params=model.parameters()) == 16
    assert count_num_param(params=[{"params": [model.weight]}, {"params": [model.bias]}]) == 16
    with pytest.raises(ValueError, match="needs a model or params"):
        count_num_param()


def test_average_meter():
    meter = AverageMeter()
    meter.update(1.0)
    meter.update(torch.tensor(4.0), n=2)
    assert (meter.val, meter.avg, meter.sum, meter.count) == (4.0, 3.0, 9.0, 3)
    meter.reset()
    assert meter.count == 0 and meter.avg == 0


def test_metric_meter():
    meter = MetricMeter(delimiter=" | ")
    meter.update({"loss": 0.3456, "acc": 50})
    meter.update({"loss": 0.1234})
    meter.update(None)
    assert str(meter) == "loss 0.1234 (0.2345) | acc 50.0000 (50.0000)"
    with pytest.raises(TypeError, match="takes a dict of names and numbers, but got a list"):
        meter.update([1.0])


def test_logger_tees_and_gives_stdout_back(tmp_path, capsys):
    before = sys.stdout
    with setup_logger(tmp_path / "run") as logger:
        print("hello")
        assert (tmp_path / "run" / "log.txt").read_text() == "hello\n"  # flushed at once
        assert logger.encoding == before.encoding
    assert sys.stdout is before
    print("after")
    logger.write("kept reference\n")
    assert (tmp_path / "run" / "log.txt").read_text() == "hello\n"
    assert capsys.readouterr().out == "hello\nafter\nkept reference\n"


def test_logger_gives_stdout_back_after_an_error(tmp_path):
    before = sys.stdout
    with pytest.raises(KeyError), setup_logger(tmp_path / "a.log"):
        print("so far")
        raise KeyError
    log = (tmp_path / "a.log").read_text()
    assert sys.stdout is before and log.startswith("so far\nTraceback ")


def test_loggers_nest_and_may_be_quiet(tmp_path, capsys):
    with setup_logger(tmp_path / "outer.txt"):
        print("one")
        with setup_logger(tmp_path / "inner.txt", console=False):
            print("two", flush=True)
        print("three")
    assert (tmp_path / "outer.txt").read_text() == "one\nthree\n"
    assert (tmp_path / "inner.txt").read_text() == "two\n"
    assert capsys.readouterr().out == "one\nthree\n"


def test_logger_keeps_earlier_files(tmp_path):
    for text in ("a", "b", "c"):
        with setup_logger(tmp_path):
            print(text)
    names = files(tmp_path)
    assert len(names) == 3 and names[0] == "log.txt"
    assert all(name.startswith("log.txt-20") for name in names[1:])
    with setup_logger(tmp_path, append=True):
        print("d")
    assert (tmp_path / "log.txt").read_text() == "a\nd\n"


def test_logger_without_a_file(capsys):
    with setup_logger():
        print("hello")
    assert capsys.readouterr().out == "hello\n"


def test_registry():
    registry = Registry("animal")

    @registry.register()
    class Cat:
        pass

    assert registry.get("Cat") is Cat and "Cat" in registry and "Dog" not in registry
    assert registry.registered_names() == ["Cat"]
    with pytest.raises(KeyError, match="animal 'Cat' is registered twice"):
        registry.register()(Cat)
    assert registry.register(force=True)(Cat) is Cat
    with pytest.raises(UserError, match="no animal named 'cat'; did you mean Cat"):
        registry.get("cat")


@pytest.mark.parametrize("content", ["import no_such_package", "def", "1 / 0"])
def test_a_file_that_cannot_be_imported_is_named(tmp_path, monkeypatch, content):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "cat.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("animal")
    registry.discover("zoo", [str(tmp_path / "zoo")])
    with pytest.raises(UserError, match=r"zoo/cat\.py \(\w+Error: "):
        registry.registered_names()


def test_sizes_and_numbers_in_words():
    sizes = [size_in_words(n) for n in (0, 3210, 64e6, 1.25e9)]
    assert sizes == ["0.0 kB", "3.2 kB", "64.0 MB", "1.25 GB"]
    assert [size_in_words(n) for n in (999_949, 999_960, 999_960_000)] == [
        "999.9 kB",
        "1.0 MB",
        "1.00 GB",
    ]
    assert [counted(n, "run") for n in (0, 1, 2000)] == ["0 runs", "1 run", "2,000 runs"]


def test_unknown_name():
    assert nearest("coop", ["CoOp", "MTCoOp"]) == "CoOp"
    assert nearest("xyz", ["CoOp"]) is None
    message = str(unknown_name("trainer", "COOP", ["CoOp", "MTCoOp"]))
    assert message.startswith("no trainer named 'COOP'; did you mean CoOp?")
    assert message.endswith("known: CoOp, MTCoOp")
    assert "did you mean" not in str(unknown_name("trainer", "xyz", ["CoOp"]))
    assert "known: none" in str(unknown_name("trainer", "xyz", []))


def test_error_of_a_worker_is_cut_to_its_message():
    error = UserError("Caught UserError in worker 0.\n  File x\ndassl.UserError: no file a\n")
    assert str(error) == "no file a"


def test_import_all_imports_public_modules(tmp_path, monkeypatch):
    for name in ("_plumbing", "method"):
        (tmp_path / f"{name}.py").write_text("")
    package = types.ModuleType("pack_for_test")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "pack_for_test", package)
    import_all(package)
    assert "pack_for_test.method" in sys.modules
    assert "pack_for_test._plumbing" not in sys.modules
    del sys.modules["pack_for_test.method"]


@pytest.mark.parametrize(
    "error",
    [MemoryError("full"), OSError("gone"), RuntimeError("CUDA out of memory"), UserError("")],
)
def test_a_file_is_not_called_damaged_for_errors_of_other_things(error):
    with pytest.raises(type(error)) as found, naming_damaged("resume.pt"):
        raise error
    assert found.value is error


def test_a_file_whose_values_cannot_be_used_is_named():
    with pytest.raises(DamagedFile, match=r"a\.pt is damaged .*size"), naming_damaged("a.pt"):
        raise RuntimeError("size of a tensor")
