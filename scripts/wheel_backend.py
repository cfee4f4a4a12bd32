"""Builds the wheel, in which every folder and program lies under the one name ``softcpt``.

In the repository they are imported by CoOp's names (``clip``, ``datasets``, ...), which would hide
other packages of these names once they are installed. The wheel holds ``softcpt.clip``,
``softcpt.datasets``, ... instead; only the import statements are rewritten. ``pip install -e .``
leaves the repository as it is, and ``import softcpt`` then puts it on the path.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

ROOMS = ("clip", "dassl", "datasets", "image_text", "prompting", "results", "sweeps", "trainers")
PROGRAMS = ("train", "predict", "export", "sweep", "parse_test_res", "interpret_prompt")
NAMES = "|".join((*ROOMS, *PROGRAMS))
FROM = re.compile(rf"^(\s*)from ({NAMES})(\.[\w.]+)? import ", re.M)
IMPORT = re.compile(rf"^(\s*)import ({NAMES})(?=$|\s+as\s|\s*#)", re.M)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None) -> str:
    """Arrange the sources in a temporary folder, and let setuptools build the wheel there."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        arrange(here, Path(folder))
        os.chdir(folder)
        try:
            return build_meta.build_wheel(wheel_directory, config_settings)
        finally:
            os.chdir(here)


def arrange(repository: Path, target: Path) -> None:
    """Copy the sources into ``target/softcpt``, with rewritten imports."""
    package = target / "softcpt"
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(repository / "softcpt", package, ignore=skipped)
    for room in (*ROOMS, "configs"):
        shutil.copytree(repository / room, package / room, ignore=skipped)
    for program in PROGRAMS:
        shutil.copyfile(repository / f"{program}.py", package / f"{program}.py")
    for path in package.rglob("*.py"):
        path.write_text(rewrite(path.read_text(encoding="utf-8")), encoding="utf-8")
    for name in ("README.md", "LICENSE"):
        shutil.copyfile(repository / name, target / name)
    settings = (repository / "pyproject.toml").read_text(encoding="utf-8")
    settings = re.sub(r"^(build-backend|backend-path) = .*\n", "", settings, flags=re.M)
    settings = settings.replace('packages = ["softcpt"]', PACKAGES)
    (target / "pyproject.toml").write_text(settings, encoding="utf-8")
    needed, _, _ = (repository / "requirements.txt").read_text(encoding="utf-8").partition("\n\n")
    (target / "requirements.txt").write_text(f"{needed}\n", encoding="utf-8")


PACKAGES = """\
package-data = {"*" = ["*"]}

[tool.setuptools.packages.find]
include = ["softcpt*"]
namespaces = true
"""


def rewrite(source: str) -> str:
    """A module's source with ``softcpt.`` before the names of folders and programs it imports."""
    source = FROM.sub(lambda m: f"{m[1]}from softcpt.{m[2]}{m[3] or ''} import ", source)
    return IMPORT.sub(lambda m: f"{m[1]}from softcpt import {m[2]}", source)
