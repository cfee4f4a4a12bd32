"""A suite's own command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable


def print_rows(run: Callable[[bool], list[dict]], about: str) -> None:
    """Print the rows of ``run(small)`` as they are, one JSON object a line."""
    parser = argparse.ArgumentParser(description=about.split("\n")[0])
    parser.add_argument("--small", action="store_true", help="in miniature")
    for line in run(parser.parse_args().small):
        print(json.dumps(line))
