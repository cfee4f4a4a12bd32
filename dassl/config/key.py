"""Specification of one configuration key: its default and the values that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dassl.utils.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Key:
    """Default and range of a configuration key; a plain value is a default without a range.

    In a list or tuple, the range holds for every item.

    Args:
        choices: all values that are allowed, beside any number if the default is one.
        least, most: inclusive bounds of a number.
        above, below: exclusive bounds of a number.
        refused: a value within the bounds that is not allowed.
        about: what the number counts, for the message of an error.
        also: types that are accepted besides the default's.
    """

    default: Any
    choices: tuple = ()
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    refused: float | None = None
    about: str = ""
    also: tuple[type, ...] = ()

    def check(self, value: Any, where: str) -> None:
        """Refuse a value out of range.

        Raises:
            UserError: it starts with ``where`` and names the allowed values and the value.
        """
        items = value if isinstance(value, (tuple, list)) else [value]
        if all(map(self._allows, items)):
            return
        hint = did_you_mean(value, map(str, self.choices)) if isinstance(value, str) else ""
        raise UserError(f"{where} takes {self.allowed()}; got {value!r}{hint}")

    def _allows(self, item: Any) -> bool:
        if self.choices and not (self._or_number and type(item) is float):
            return item in self.choices
        if isinstance(item, bool) or not isinstance(item, (int, float)):
            return not self._bounds
        return (
            (isinstance(item, int) or math.isfinite(item))
            and (self.least is None or item >= self.least)
            and (self.most is None or item <= self.most)
            and (self.above is None or item > self.above)
            and (self.below is None or item < self.below)
            and item != self.refused
        )

    @property
    def _or_number(self) -> bool:
        return isinstance(self.default, float)

    @property
    def _bounds(self) -> list[str]:
        bounds = {
            "at least": self.least,
            "above": self.above,
            "at most": self.most,
            "below": self.below,
            "not": self.refused,
        }
        return [f"{text} {bound}" for text, bound in bounds.items() if bound is not None]

    def allowed(self) -> str:
        """The allowed values in words, such as ``a number of at least 0 and at most 1``."""
        if self.choices:
            names = ", ".join(str(choice) or repr("") for choice in self.choices)
            return f"{names} or a number" if self._or_number else f"one of {names}"
        kinds = {int: "a whole number", tuple: "a list of numbers", list: "a list of numbers"}
        kind = kinds.get(type(self.default), "a number")
        about = f" ({self.about})" if self.about else ""
        bounds = " and ".join(self._bounds) or "finite value"
        return f"{kind} {'' if bounds.startswith('above') else 'of '}{bounds}{about}"
