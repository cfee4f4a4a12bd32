"""Computes the image features that are missing in a store."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from filelock import FileLock
from torch.utils.data import DataLoader, Dataset

from clip.features import ENCODE_BATCH, FeatureStore, encode_fixed, make_room
from clip.model import CLIP
from dassl.config import CfgNode
from dassl.data import EpochDataLoader
from dassl.data.wrapper import DatasetWrapper
from dassl.utils import Stopwatch, UserError, distributed, size_in_words

DTYPES = {"": None, "fp16": torch.float16}
SHARD_BYTES = 64 * 2**20  # of features per file: at most this much is lost if a run is killed


class FeatureEncoder:
    """Runs the frozen image tower over images and stores its outputs.

    Args:
        clip: the frozen CLIP.
        outputs: names of the tower's outputs to store.
        cfg: the whole configuration; FEATURES is about what is stored, and where.
        precision: of the tower; part of the key of stored features.
        autocast: returns the context in which images are encoded.
        clock: counts the time of encoding as "image".
    """

    def __init__(
        self,
        clip: CLIP,
        outputs: frozenset[str],
        cfg: CfgNode,
        precision: str,
        autocast: Callable[[], contextlib.AbstractContextManager],
        clock: Stopwatch,
    ):
        self.clip, self.device, self.cfg = clip, clip.device, cfg
        self.outputs, self.options = sorted(outputs), cfg.FEATURES
        self.precision, self.autocast, self.clock = precision, autocast, clock

    def complete(self, stores: dict, names: list[str], loader: EpochDataLoader) -> None:
        """Compute what is missing in the stores, once even if several runs need it.

        All processes of a run must call it, since they share the work.
        """
        first = next(iter(stores.values()))
        with _lock(first) if distributed.is_main() else contextlib.nullcontext():
            indices, outputs = distributed.broadcast(
                self._plan(stores, names) if distributed.is_main() else None
            )
            share = indices[distributed.share(len(indices))]
            for digests, features in self._encode(loader, share, outputs):
                for output in outputs:
                    stores[output].add(digests, features[output])
            distributed.barrier()
        for store in stores.values():
            store.refresh()

    def _plan(self, stores: dict, names: list[str]) -> tuple[list[int], frozenset]:
        """Indices of the images to encode and the outputs to store, after making room for them."""
        for store in stores.values():
            store.refresh()
        missing = {output: set(store.missing(names)) for output, store in stores.items()}
        wanted = set().union(*missing.values())
        index = {name: i for i, name in enumerate(names) if name in wanted}
        if index:  # otherwise another run was faster
            needed = len(index) * self.bytes_per_image
            print(f"Computing the features of {len(index):,} images: {size_in_words(needed)}")
            limit, root = int(self.options.LIMIT_GB * 1e9), next(iter(stores.values())).root
            folders = [store.folder for store in stores.values()]
            for part in make_room(root, needed, limit, keep=folders):
                print(f"Deleted the features in {part.folder}: FEATURES.LIMIT_GB is reached")
        return sorted(index.values()), frozenset(out for out in stores if missing[out])

    def _encode(
        self, loader: EpochDataLoader, indices: list[int], outputs: frozenset
    ) -> Iterator[tuple[list, dict]]:
        """Digests and features of images, in pieces of one file."""
        if not indices:
            return
        images = _Views(loader.dataset, indices)
        workers = min(loader.num_workers, len(images) // ENCODE_BATCH)
        # a generator of its own: drawing from the global one would make a run that computes
        # features differ from one that finds them stored
        own = torch.Generator()
        batches = DataLoader(images, ENCODE_BATCH, num_workers=workers, generator=own)
        per_file = math.ceil(SHARD_BYTES / self.bytes_per_image / ENCODE_BATCH)
        names, rows = [], {output: [] for output in outputs}
        for step, (pixels, digests) in enumerate(batches, 1):
            with self.clock.part("image"), self.autocast():
                pixels = pixels.to(self.device, self.clip.dtype)
                encoded = encode_fixed(self.clip, pixels, outputs)
            names += digests
            for output, features in encoded.items():
                rows[output].append(_for_storage(features, self.options.DTYPE))
            if step % per_file == 0 or step == len(batches):
                yield names, {output: torch.cat(parts) for output, parts in rows.items()}
                names, rows = [], {output: [] for output in outputs}

    @cached_property
    def bytes_per_image(self) -> int:
        """Stored bytes of the outputs of one image."""
        blank = torch.zeros(1, 3, *self.clip.image_size, device=self.device)
        with torch.no_grad():
            encoded = self.clip.encode_outputs(blank.to(self.clip.dtype), frozenset(self.outputs))
        dtype = DTYPES[self.options.DTYPE]
        return sum(v[0].numel() * (dtype or v.dtype).itemsize for v in encoded.values())


class _Views(Dataset):
    """Images of a dataset with the digest of the bytes that were decoded."""

    def __init__(self, dataset: DatasetWrapper, indices: list[int]):
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, str]:
        return self.dataset.view(self.dataset.data_source[self.indices[i]].impath)


def _for_storage(features: torch.Tensor, dtype: str) -> torch.Tensor:
    stored = features.cpu().to(DTYPES[dtype] or features.dtype)
    if not stored.isfinite().all() and features.isfinite().all():
        raise UserError(f"the image features overflow FEATURES.DTYPE {dtype}; set it to ''")
    return stored


@contextlib.contextmanager
def _lock(store: FeatureStore) -> Iterator[None]:
    """Make other runs that need the same features wait, if the folder is writable."""
    lock = FileLock(store.folder.with_suffix(".lock"))
    try:
        store.folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()
