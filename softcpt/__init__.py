"""Finished runs in Python: load one, classify images, export it; train one from a notebook.

    import softcpt

    run = softcpt.load_run("output/mine/seed1")
    for found in run.predict(["new/1.jpg", "new/2.jpg"]):
        print(found.image, found.label, found.probability)

The programs ``predict.py`` and ``export.py`` are this package on the command line.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

_REPOSITORY = Path(__file__).parent.parent
if (_REPOSITORY / "train.py").is_file() and str(_REPOSITORY) not in sys.path:
    sys.path.insert(0, str(_REPOSITORY))  # pip install -e: its folders are imported by their names

from dassl.utils.lazy import lazy_imports  # noqa: E402

if TYPE_CHECKING:
    from .exporting import export_run
    from .loading import load_run
    from .prediction import Prediction
    from .run import LoadedRun
    from .training import train_run

__all__ = ["LoadedRun", "Prediction", "export_run", "load_run", "train_run"]

__getattr__, __dir__ = lazy_imports(__name__)
