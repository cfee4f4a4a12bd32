"""The help of the programs: the command by which one was started, and the width."""

import sys

import pytest

import export
import interpret_prompt
import parse_test_res
import predict
import sweep
import train
from clip.features import __main__ as features
from datasets import __main__ as data


@pytest.mark.parametrize(
    "started, parse", [("softcpt train", train.parse_args), ("softcpt data", data.parse_args)]
)
def test_help_of_the_installed_command(started, parse, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [started])
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {started}") and f"\n  {started} " in text.replace("    ", "  ")
    assert "python" not in text


HELPS = {
    "train": train.parse_args,
    "sweep": sweep.parse_args,
    "parse": parse_test_res.parse_args,
    "interpret": interpret_prompt.parse_args,
    "predict": predict.parse_args,
    "export": export.parse_args,
    "data": data.parse_args,
    **{f"data {name}": data.parse_args for name in ("check", "show", "shots", "make-mini")},
    "features": features.main,
}


@pytest.mark.parametrize("name", HELPS)
def test_help_fits_a_terminal_of_80_columns(name, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        HELPS[name]([*name.split()[1:], "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 79] == []
