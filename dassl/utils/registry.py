"""Maps the names written in a YAML to classes, which are imported when they are used."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from .errors import UserError, unknown_name


class _Found(NamedTuple):
    """A class that a module registers, read from the module's source."""

    module: str
    summary: str  # first line of its docstring


class Registry:
    """A named table of classes, filled by the ``@REGISTRY.register()`` decorator.

    Args:
        name: the kind of class in lower case, for messages. Modules are expected to call the
            registry by its upper-case form: ``trainer`` -> ``TRAINER_REGISTRY``.
    """

    def __init__(self, name: str):
        self.name = name
        self._classes: dict[str, type] = {}
        self._packages: list[tuple[str, list[str]]] = []  # to be searched, with their folders
        self._found: dict[str, _Found] = {}

    def register(self, force: bool = False) -> Callable[[type], type]:
        """Add the decorated class under its own name; a second time only with ``force``."""

        def add(cls: type) -> type:
            if cls.__name__ in self._classes and not force:
                raise KeyError(f"{self.name} {cls.__name__!r} is registered twice")
            self._classes[cls.__name__] = cls
            return cls

        return add

    def discover(self, package: str, folders: Iterable[str]) -> None:
        """Add the classes that a package's public modules register, without importing them.

        A name is looked up in the source of the modules; :meth:`get` imports the one it is in.

        Args:
            folders: the package's ``__path__``.
        """
        self._packages.append((package, list(folders)))

    def get(self, name: str) -> type:
        """The class of that name.

        Raises:
            UserError: no class has that name; the message shows the nearest and all names.
        """
        self.check_name(name)
        if name not in self._classes:
            _import(self._found[name].module)
        return self._classes[name]

    def check_name(self, name: str) -> None:
        """Raise UserError if no class has that name; nothing is imported for it."""
        if name not in self:
            raise unknown_name(self.name, name, self.registered_names())

    def registered_names(self) -> list[str]:
        """All names, sorted."""
        self._search()
        return sorted({*self._classes, *self._found})

    def summary(self, name: str) -> str:
        """First line of a class's docstring, without importing the class."""
        if name in self._classes:
            return (self._classes[name].__doc__ or "").strip().split("\n")[0]
        return self._found[name].summary if name in self else ""

    def __contains__(self, name: str) -> bool:
        self._search()
        return name in self._classes or name in self._found

    def _search(self) -> None:
        """Read the modules of newly added packages."""
        while self._packages:
            package, folders = self._packages.pop()
            for module, is_package in public_modules(package, folders):
                found = dict(self._read(module, folders, is_package))
                self._found |= found
                if not found:  # registers in another way: only an import can tell
                    _import(module)

    def _read(
        self, module: str, folders: list[str], is_package: bool
    ) -> Iterator[tuple[str, _Found]]:
        """Classes registered in the source of a module or of a package's modules."""
        stem = module.rpartition(".")[2]
        for folder in map(Path, folders):
            files = (folder / stem).glob("*.py") if is_package else [folder / f"{stem}.py"]
            for path in filter(Path.is_file, files):
                home = f"{module}.{path.stem}" if is_package and path.stem != "__init__" else module
                for node in _classes_in(path):
                    if any(map(self._is_register, node.decorator_list)):
                        doc = ast.get_docstring(node) or ""
                        yield node.name, _Found(home, doc.split("\n")[0])

    def _is_register(self, decorator: ast.expr) -> bool:
        called = ast.unparse(decorator).partition("(")[0]
        return called.endswith(f"{self.name.upper()}_REGISTRY.register")


def _import(module: str) -> None:
    """Import a module of a searched package.

    Raises:
        UserError: it cannot be imported; the message names its file.
    """
    try:
        importlib.import_module(module)
    except UserError:
        raise
    except Exception as error:  # the file may hold anything
        spec = importlib.util.find_spec(module)
        file = spec.origin if spec else module
        raise UserError(
            f"cannot import {file} ({type(error).__name__}: {error}): correct the file or move it "
            "away; --debug shows the line"
        ) from error


def _classes_in(path: Path) -> list[ast.ClassDef]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):  # the import will show what is wrong
        return []
    return [node for node in tree.body if isinstance(node, ast.ClassDef)]


def public_modules(package: str, folders: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Full names of a package's modules without a leading underscore; True for a package."""
    for module in pkgutil.iter_modules(folders):
        if not module.name.startswith("_"):
            yield f"{package}.{module.name}", module.ispkg


def import_all(package: ModuleType) -> None:
    """Import every public module of a package, so that each registers what it defines."""
    for module, _ in public_modules(package.__name__, package.__path__):
        importlib.import_module(module)
