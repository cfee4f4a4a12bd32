"""Frozen weights in autocast's dtype, converted once and not whenever an operator reads them.

Autocast keeps a converted weight only if the weight requires a gradient, so it would convert
those of a frozen tower anew in every step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

# Parameters that modules of exactly these types pass only to operators whose inputs autocast
# converts. Norms and embeddings have none.
CONVERTED: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("weight", "bias"),
    NonDynamicallyQuantizableLinear: ("weight", "bias"),
    nn.Conv2d: ("weight", "bias"),
    nn.MultiheadAttention: ("in_proj_weight", "in_proj_bias"),
}


class Cast(NamedTuple):
    """A converted parameter, and what it was converted from."""

    source: nn.Parameter
    version: int  # increases when the source is changed in place
    address: int  # changes when ``source.data`` is replaced
    value: torch.Tensor

    def is_of(self, parameter: nn.Parameter) -> bool:
        """Whether this parameter was converted, and has not changed since."""
        return (
            self.source is parameter
            and self.version == parameter._version
            and self.address == parameter.data_ptr()
        )


class CastParameters(dict[str, "nn.Parameter | None"]):
    """A module's parameters; under autocast, ``module.weight`` is in autocast's dtype.

    A module finds an attribute with ``_parameters[name]``, and lists its parameters with
    ``_parameters.items()``. Only the first is changed here: state dicts, hashes, optimizers,
    copies and ``module.to()`` get the parameters themselves. A parameter that requires a gradient
    is not converted, and one that was replaced or changed is converted again. Not noticed is a
    change in place through ``parameter.data``, such as ``parameter.data.mul_(2)``.

    Args:
        names: the parameters to convert.
    """

    def __init__(self, parameters: dict[str, nn.Parameter | None], names: tuple[str, ...]):
        super().__init__(parameters)
        self.names = names
        self.casts: dict[tuple[str, torch.dtype, float], Cast] = {}

    def __getitem__(self, name: str) -> torch.Tensor | None:  # type: ignore[override]
        if name not in self.names or torch.compiler.is_compiling():  # compiled code fuses casts
            return super().__getitem__(name)
        return self.read(name)

    def __reduce__(self) -> tuple:
        """Copy and pickle without the converted tensors."""
        return CastParameters, (dict(self.items()), self.names)

    def read(self, name: str, factor: float = 1) -> torch.Tensor | None:
        """``factor`` times a parameter, rounded as an operator under autocast would round it."""
        parameter = self.get(name)
        if parameter is None:
            return None
        device = "cuda" if parameter.is_cuda else parameter.device.type  # the first is faster
        if not torch.is_autocast_enabled(device) or parameter.requires_grad:
            return _times(parameter, factor)
        key = name, torch.get_autocast_dtype(device), factor
        cast = self.casts.get(key)
        if cast is None or not cast.is_of(parameter):
            if not _can_convert(parameter):
                return _times(parameter, factor)
            # autograd could not use later what is made in inference mode
            with torch.inference_mode(False), torch.no_grad():
                value = _times(parameter, factor).to(key[1])
            cast = Cast(parameter, parameter._version, parameter.data_ptr(), value)
            self.casts[key] = cast
        return cast.value


def _can_convert(parameter: torch.Tensor) -> bool:
    """Whether autocast would convert a parameter, and the result can be stored."""
    if parameter.dtype != torch.float32 or parameter.is_inference():
        return False
    # what is computed while a CUDA graph is captured exists only after its replay
    return not (parameter.is_cuda and torch.cuda.is_current_stream_capturing())


def _times(parameter: torch.Tensor, factor: float) -> torch.Tensor:
    return parameter if factor == 1 else factor * parameter


def convert_once(tower: nn.Module, *names: str) -> None:
    """From now on, convert the frozen weights of a tower only once for each dtype of autocast.

    Args:
        names: parameters of the tower itself that only matrix products read.
    """
    _convert(tower, names)
    for module in tower.modules():
        _convert(module, CONVERTED.get(type(module), ()))


def _convert(module: nn.Module, names: tuple[str, ...]) -> None:
    found = tuple(name for name in names if module._parameters.get(name) is not None)
    if found and not isinstance(module._parameters, CastParameters):
        module._parameters = CastParameters(module._parameters, found)


def scaled(module: nn.Module, name: str, factor: float) -> torch.Tensor:
    """``factor`` times a parameter; under autocast rounded once, after the product."""
    parameters = module._parameters
    if isinstance(parameters, CastParameters):
        return parameters.read(name, factor)
    return factor * parameters[name]


def stored(module: nn.Module, name: str) -> nn.Parameter:
    """A parameter as the module stores it, also under autocast."""
    return module._parameters.get(name)
