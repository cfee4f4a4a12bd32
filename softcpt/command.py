"""The command ``softcpt``: every program of the project, wherever it is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from dassl.utils import unknown_name
from dassl.utils.command_line import DONE, WRONG_COMMAND

HERE = Path(__file__).parent
PACKAGE = HERE if (HERE / "configs").is_dir() else HERE.parent  # installed, or in the repository


def _train() -> int:
    import train

    return train.command()


def _sweep() -> int:
    import sweep

    return sweep.command()


def _table() -> int:
    import parse_test_res

    return parse_test_res.command()


def _predict() -> int:
    import predict

    return predict.command()


def _export() -> int:
    import export

    return export.command()


def _data() -> int:
    from datasets import __main__ as data

    return data.command()


PROGRAMS: dict[str, tuple[Callable[[], int], str]] = {
    "train": (_train, "train or evaluate one method on one dataset or suite"),
    "sweep": (_sweep, "a grid of runs"),
    "table": (_table, "tables, figures and reports over many runs"),
    "predict": (_predict, "classify new images with a finished run"),
    "export": (_export, "class weights, ONNX or learned prompts of a finished run"),
    "data": (_data, "check and show datasets"),
}


def main() -> int:
    """Run ``softcpt PROGRAM ...``; the exit code."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print("usage: softcpt PROGRAM ...\n")
        for name, (_, summary) in PROGRAMS.items():
            print(f"  {name:<8} {summary}")
        print(f"\nsoftcpt PROGRAM --help shows its flags. Configurations: {PACKAGE / 'configs'}")
        print("(a path that begins with configs/ is found there, unless it exists here)")
        return DONE
    if words[0] not in PROGRAMS:
        print(f"error: {unknown_name('program', words[0], PROGRAMS)}", file=sys.stderr)
        return WRONG_COMMAND
    sys.argv = [f"softcpt {words[0]}", *map(find_config, words[1:])]
    return PROGRAMS[words[0]][0]()


def find_config(word: str) -> str:
    """An argument; a path ``configs/...`` that does not exist here is that of the package."""
    installed = PACKAGE / word
    if word.startswith("configs/") and not Path(word).exists() and installed.exists():
        return str(installed)
    return word


if __name__ == "__main__":
    sys.exit(main())
