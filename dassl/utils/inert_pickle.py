"""Checkpoints of CoOp's and SoftCPT's released code, read without running anything in them.

Such a file pickles an optimizer, a schedule and, through it, the whole frozen model beside the
weights; ``weights_only=True`` refuses it, and an ordinary load would run whatever it names. Here
tensors are places in the file until they are asked for, and every class and function that a
pickle names is replaced by something that does nothing.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

import torch

from .errors import UserError

STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "ShortStorage": torch.int16,
}
TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2")
PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")


class _Storage(NamedTuple):
    dtype: Any
    key: Any


class _Place(NamedTuple):
    """Where a tensor lies in the file."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


class _MakePlace:
    """Replaces torch's functions that rebuild a tensor.

    Without attributes, since a pickle may set those of any object that it is given.
    """

    __slots__ = ()

    def __call__(self, storage, offset, size, stride, *rest) -> _Place:
        return _Place(storage, offset, size, stride)


class _FirstArgument:
    """Replaces torch's functions that make a parameter of a tensor."""

    __slots__ = ()

    def __call__(self, first, *rest):
        return first


def _inert_class() -> type:
    """A class that replaces all others of one file: a dict that stays empty."""

    class Inert(dict):
        def __init__(self, *args, **kwargs):
            super().__init__()

        def __call__(self, *args, **kwargs):
            return Inert()

        def __setitem__(self, key, value):
            pass

        def append(self, value):
            pass

        extend = add = update = __setstate__ = append

    return Inert


class _Unpickler(pickle.Unpickler):
    """An unpickler that never gives a pickle anything with an effect."""

    def __init__(self, file):
        super().__init__(file)
        self._inert = _inert_class()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in TENSORS:
            return _MakePlace()
        if module == "torch._utils" and name in PARAMETERS:
            return _FirstArgument()
        if module in ("torch", "torch.cuda") and name in STORAGES:
            return STORAGES[name]
        return self._inert

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, *_ = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"a {kind!r} that is no storage of a known type")
        return _Storage(dtype, key)


def load_inert(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a file of torch.save, with nothing in it run.

    Tensors in ``state_dict`` are read; anything else is a plain value, or a stand-in without
    content.

    Raises:
        UserError: the file is missing, damaged, compressed, or written by torch before 1.6.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            top = _top_folder(archive)
            content = _unpickle(archive.read(f"{top}data.pkl"))
            if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict):
                raise UserError(f"the checkpoint {path} holds no dict named state_dict")
            state = content["state_dict"]
            tensors = {k: _read(archive, top, v) for k, v in state.items() if isinstance(v, _Place)}
            return {**content, "state_dict": tensors}
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except zipfile.BadZipFile:
        raise UserError(
            f"cannot read the checkpoint {path}: it is damaged, or written by torch before 1.6; "
            "load it there and save its state_dict again with a newer torch"
        ) from None
    except Exception as error:  # a broken pickle can make the unpickler raise nearly anything
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"cannot read the checkpoint {path}: {reason}") from None


def _top_folder(archive: zipfile.ZipFile) -> str:
    if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
        raise ValueError("it is compressed, which torch.save never does")
    names = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
    if len(names) != 1:
        raise ValueError("it is a zip file, but not one of torch.save")
    top = names[0].removesuffix("data.pkl")
    order = f"{top}byteorder"
    if order in archive.namelist() and archive.read(order) != b"little":
        raise ValueError("it was written on a big-endian machine")
    return top


def _unpickle(data: bytes) -> Any:
    for opcode, argument, _ in pickletools.genops(data):
        if "PUT" in opcode.name and argument is not None and argument > len(data):
            raise pickle.UnpicklingError("it asks for more memory than it can use")
    return _Unpickler(io.BytesIO(data)).load()


def _read(archive: zipfile.ZipFile, top: str, place: _Place) -> torch.Tensor:
    dtype, key = place.storage
    data = bytearray(archive.read(f"{top}data/{key}"))
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    if math.prod(place.size) > len(flat):  # as a stride of 0 would make it
        raise ValueError(f"a tensor of shape {place.size} has only {len(flat)} values")
    return flat.as_strided(place.size, place.stride, place.offset).clone()
