"""Maps the names written in a YAML to the classes that they mean."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType

from .errors import unknown_name


class Registry:
    """A named table of classes, filled by the ``@REGISTRY.register()`` decorator.

    Args:
        name: what the classes are, in lower case: it stands in the messages.
    """

    def __init__(self, name: str):
        self.name = name
        self._classes: dict[str, type] = {}

    def register(self, force: bool = False) -> Callable[[type], type]:
        """Enter the decorated class under its own name; twice only with ``force``."""

        def add(cls: type) -> type:
            if cls.__name__ in self._classes and not force:
                raise KeyError(f"{self.name} {cls.__name__!r} is registered twice")
            self._classes[cls.__name__] = cls
            return cls

        return add

    def get(self, name: str) -> type:
        """The class of that name; an unknown one is answered with the nearest and all known."""
        if name not in self._classes:
            raise unknown_name(self.name, name, self.registered_names())
        return self._classes[name]

    def registered_names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._classes)

    def __contains__(self, name: str) -> bool:
        return name in self._classes


def import_all(package: ModuleType) -> None:
    """Import every public module of a package, so that each registers what it defines."""
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{module.name}")
