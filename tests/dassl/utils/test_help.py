"""The help of a program names the command by which it was started."""

import sys

import pytest

import train
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
