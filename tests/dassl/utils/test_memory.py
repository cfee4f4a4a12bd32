"""Free memory: the system's and the control group's."""

import os
import resource
import subprocess
import sys

import pytest

from dassl.utils import free_memory, memory


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system with 8 GB available; ``system(folder, **files)`` writes a control group."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 16000000 kB\nMemAvailable:    8000000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)

    def group(folder="", **files):
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, text in files.items():
            (tmp_path / folder / name.replace("__", ".")).write_text(text)

    return group


def test_without_a_group(system):
    assert free_memory() == 8_192_000_000


def test_group_of_version_2(system):
    stat = "anon 1\ninactive_file 300\n"
    system(memory__max="1000\n", memory__current="600\n", memory__stat=stat)
    assert free_memory("cpu") == 700
    system(memory__max="max\n")
    assert free_memory() == 8_192_000_000


def test_group_of_version_1(system):
    system(
        "memory",
        memory__limit_in_bytes="1000",
        memory__usage_in_bytes="1500",
        memory__stat="total_inactive_file 100",
    )
    assert free_memory() == 0
    system("memory", memory__limit_in_bytes="9223372036854771712")
    assert free_memory() == 8_192_000_000


def test_another_system(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert free_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def test_limit_of_the_process():
    program = "from dassl.utils import free_memory; print(free_memory())"
    limit = 2**35
    done = subprocess.run(
        [sys.executable, "-c", program],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 < int(done.stdout) < limit
