"""A stand-in for a GPU, on a machine without: it tells who would have waited for a real one."""

from __future__ import annotations

import traceback
from pathlib import Path

import torch
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
THERE, HERE = torch.device("meta"), torch.device("cpu")  # of what autograd takes without a driver
ROOT = Path(__file__).parents[2]
# What looks at values, or makes a result whose shape depends on them, waits for the device.
LOOKS = {
    aten._local_scalar_dense,
    aten.is_nonzero,
    aten.equal,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
}
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class There(torch.Tensor):
    """A tensor on the stand-in."""

    @staticmethod
    def __new__(cls, inner: torch.Tensor):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=THERE,
        )

    def __init__(self, inner: torch.Tensor):
        self.inner = inner

    def __repr__(self):
        return f"There({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        with PretendDevice():
            return func(*args, **(kwargs or {}))


class PretendDevice(TorchDispatchMode):
    """Runs tensors that are :class:`There` on the CPU; ``waits`` lists who would have waited.

    Raises:
        RuntimeError: an operator got tensors of both sides, which a GPU refuses.
    """

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []

    def move(self, module: torch.nn.Module) -> None:
        """Put a module's parameters and buffers on the device."""
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is not None and not isinstance(value, There):
                    part._parameters[name] = Parameter(There(value.data), value.requires_grad)
            for name, value in part._buffers.items():
                if value is not None and not isinstance(value, There):
                    part._buffers[name] = There(value)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if torch.is_tensor(x)]
        there = [x for x in tensors if isinstance(x, There)]
        goes = kwargs.get("device", THERE if there else HERE) == THERE
        self._check(func.overloadpacket, tensors, there, args, kwargs)
        if "device" in kwargs:
            kwargs["device"] = HERE
        inner_args, inner_kwargs = tree_map_only(There, lambda x: x.inner, (args, kwargs))
        out = func(*inner_args, **inner_kwargs)
        if goes:
            out = tree_map_only(torch.Tensor, There, out)
            if there:
                out = return_and_correct_aliasing(func, args, kwargs, out)
        return out

    def _check(self, op, tensors, there, args, kwargs) -> None:
        here = [x for x in tensors if not isinstance(x, There) and x.dim()]
        if op in (aten._to_copy, aten.copy_):
            crosses = there and kwargs.get("device", THERE) == HERE
            crosses = crosses or (not there and kwargs.get("device") == THERE)
            crosses = crosses or (op is aten.copy_ and here and there)
            if crosses and not (kwargs.get("non_blocking") or True in args[2:]):
                self._note(op)
        elif op in INDEXING:
            index = [x for x in tree_leaves(args[1]) if torch.is_tensor(x)]
            masks = [x for x in index if x.dtype in (torch.bool, torch.uint8)]
            if any(isinstance(x, There) for x in masks) or (here and there):
                self._note(op)
        elif there and op in LOOKS:
            self._note(op)
        elif there and here:
            raise RuntimeError(f"{op} got tensors of two devices, in {self._place()}")

    def _note(self, op) -> None:
        self.waits.append(f"{op} in {self._place()}")

    @staticmethod
    def _place() -> str:
        """The line of this project's code that is running."""
        own = [f for f in traceback.extract_stack() if f.filename.startswith(str(ROOT))]
        own = [f for f in own if "/tests/" not in f.filename and "site-packages" not in f.filename]
        return f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno}" if own else "a test"
