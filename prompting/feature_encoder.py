"""Computing the image features that a store lacks."""

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
from dassl.utils import Stopwatch, UserError, distributed

DTYPES = {"": None, "fp16": torch.float16}
SHARD_BYTES = 64 * 2**20  # of features in a file: what a killed process may have to do again


class FeatureEncoder:
    """Runs the frozen image tower over images and stores its outputs.

    Args:
        clip: the frozen CLIP.
        outputs: names of the tower's outputs that are stored.
        cfg: the whole configuration; FEATURES says what is stored, and where.
        precision: of the tower, part of the key of the stored features.
        autocast: gives the context in which images are encoded.
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
        """Compute what the stores lack, once even if several runs want it.

        Every process of a run has to call it: the work is divided.
        """
        first = next(iter(stores.values()))
        with _lock(first) if distributed.is_main() else contextlib.nullcontext():
            places, outputs = distributed.broadcast(
                self._plan(stores, names) if distributed.is_main() else None
            )
            own = places[distributed.share(len(places))]
            for found, features in self._encode(loader, own, outputs):
                for output in outputs:
                    stores[output].add(found, features[output])
            distributed.barrier()
        for store in stores.values():
            store.refresh()

    def _plan(self, stores: dict, names: list[str]) -> tuple[list[int], frozenset]:
        """Places of the images to encode, and the outputs wanted; there is room for them."""
        for store in stores.values():
            store.refresh()
        lacking = {output: set(store.missing(names)) for output, store in stores.items()}
        wanted = set().union(*lacking.values())
        place = {name: i for i, name in enumerate(names) if name in wanted}
        if place:  # else another run was faster
            needed = len(place) * self.bytes_per_image
            print(f"Computing the features of {len(place):,} images: {needed / 2**20:,.1f} MiB")
            limit, root = int(self.options.LIMIT_GB * 1e9), next(iter(stores.values())).root
            folders = [store.folder for store in stores.values()]
            for part in make_room(root, needed, limit, keep=folders):
                print(f"Deleted the features in {part.folder}: FEATURES.LIMIT_GB is reached")
        return sorted(place.values()), frozenset(out for out in stores if lacking[out])

    def _encode(
        self, loader: EpochDataLoader, places: list[int], outputs: frozenset
    ) -> Iterator[tuple[list, dict]]:
        """Names and features of images, as many at a time as go into one file."""
        if not places:
            return
        images = _Views(loader.dataset, places)
        workers = min(loader.num_workers, len(images) // ENCODE_BATCH)
        # without a generator of its own it would draw from the global one, and a run whose
        # features are stored would go on with other numbers than one that computes them
        own = torch.Generator()
        batches = DataLoader(images, ENCODE_BATCH, num_workers=workers, generator=own)
        per_file = math.ceil(SHARD_BYTES / self.bytes_per_image / ENCODE_BATCH)
        names, kept = [], {output: [] for output in outputs}
        for step, (pixels, digests) in enumerate(batches, 1):
            with self.clock.part("image"), self.autocast():
                pixels = pixels.to(self.device, self.clip.dtype)
                found = encode_fixed(self.clip, pixels, outputs)
            names += digests
            for output, features in found.items():
                kept[output].append(_as_kept(features, self.options.DTYPE))
            if step % per_file == 0 or step == len(batches):
                yield names, {output: torch.cat(some) for output, some in kept.items()}
                names, kept = [], {output: [] for output in outputs}

    @cached_property
    def bytes_per_image(self) -> int:
        """What the outputs of one image take as they are kept."""
        blank = torch.zeros(1, 3, *self.clip.image_size, device=self.device)
        with torch.no_grad():
            found = self.clip.encode_outputs(blank.to(self.clip.dtype), frozenset(self.outputs))
        kept = DTYPES[self.options.DTYPE]
        return sum(v[0].numel() * (kept or v.dtype).itemsize for v in found.values())


class _Views(Dataset):
    """Images of a dataset with the digests of the very bytes they were made from."""

    def __init__(self, dataset: DatasetWrapper, places: list[int]):
        self.dataset, self.places = dataset, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, str]:
        return self.dataset.view(self.dataset.data_source[self.places[i]].impath)


def _as_kept(features: torch.Tensor, dtype: str) -> torch.Tensor:
    kept = features.cpu().to(DTYPES[dtype] or features.dtype)
    if not kept.isfinite().all() and features.isfinite().all():
        raise UserError(f"the image features do not fit FEATURES.DTYPE {dtype}; set it to ''")
    return kept


@contextlib.contextmanager
def _lock(store: FeatureStore) -> Iterator[None]:
    """Let others that want the same features wait for them, where the folder can be written to."""
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
