"""Public class names of datasets, one a line, as the raw files spell them.

Sources: the datasets' own archives and papers; ImageNet's are those of CLIP (with WordNet ids
before them), as open_clip has them.
"""

from functools import cache
from pathlib import Path


@cache
def known_names(dataset: str) -> tuple[str, ...]:
    """The names of a dataset's classes; none if they are not known."""
    path = Path(__file__).with_name(f"{dataset}.txt")
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path.is_file() else ()
