"""Small images that are the same in every epoch, kept in memory after their first use."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from torch import Tensor
from torch.utils.data import get_worker_info

SMALL, LIMIT = 64 * 2**10, 64 * 2**20  # bytes of one image, and of all that are kept


class SmallViews:
    """Decoded and transformed images by content and transform, of all datasets of a process.

    Tasks that ask different questions about the same images, epochs and the runs of a sweep
    decode them only once. Larger images are not kept, since only few would fit, nor are those of a
    loader's worker process, which lives for one pass.
    """

    def __init__(self) -> None:
        self._views: dict[Hashable, Tensor] = {}
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """A copy of the image of ``key``, made by ``make`` if it is not there."""
        found = self._views.get(key)
        if found is not None:
            return found.clone()
        view = make()
        size = view.numel() * view.element_size()
        if size <= SMALL and self._bytes + size <= LIMIT and get_worker_info() is None:
            self._views[key], self._bytes = view.clone(), self._bytes + size
        return view


small_views = SmallViews()
