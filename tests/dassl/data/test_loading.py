"""Loading images, in one process or with workers, and the loaders of a run."""

import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dassl.config import get_cfg_default
from dassl.data import (
    DATASET_REGISTRY,
    DataManager,
    DatasetBase,
    DatasetWrapper,
    Datum,
    build_data_loader,
    build_dataset,
    build_sampler,
    build_transform,
    view_seed,
)
from dassl.data import data_manager as data_manager_module
from dassl.utils import UserError

AUGMENT = ("random_resized_crop", "random_flip", "color_jitter", "normalize")


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    data = []
    for i in range(12):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path)
        data.append(Datum(str(path), i % 3, classname=f"kind {i % 3}"))
    return data


@pytest.fixture
def cfg():
    cfg = get_cfg_default()
    cfg.SEED, cfg.VERBOSE, cfg.USE_CUDA = 1, False, False
    cfg.INPUT.SIZE, cfg.INPUT.TRANSFORMS, cfg.INPUT.INTERPOLATION = (8, 8), AUGMENT, "bilinear"
    cfg.INPUT.PIXEL_MEAN = cfg.INPUT.PIXEL_STD = [0.5, 0.5, 0.5]
    cfg.DATALOADER.NUM_WORKERS = 0
    return cfg


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(data_manager_module, "_cores", lambda: 2)


def epoch_of(loader, epoch):
    loader.set_epoch(epoch)
    batches = list(loader)
    return torch.cat([b["img"] for b in batches]), [p for b in batches for p in b["impath"]]


def test_item_holds_image_and_labels(cfg, items):
    item = DatasetWrapper(cfg, items)[4]
    assert item["img"].shape == (3, 8, 8)
    assert {k: item[k] for k in item if k != "img"} == {
        "label": 1, "task": 0, "domain": 0, "index": 4, "impath": items[4].impath,
    }  # fmt: skip


def test_exif_orientation(cfg, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = Image.new("RGB", (8, 8), "red")
    image.paste("blue", (0, 0, 8, 4))
    image.save(tmp_path / "a.png", exif=exif)
    cfg.INPUT.TRANSFORMS = ()
    top = {}
    for choice in ("ignore", "apply"):
        cfg.INPUT.EXIF = choice
        view = DatasetWrapper(cfg, [Datum(str(tmp_path / "a.png"))])[0]["img"]
        top[choice] = view[:, 0, 0].tolist()
    assert top == {"ignore": [0, 0, 1], "apply": [1, 0, 0]}


def test_augmentation_is_a_function_of_seed_epoch_and_content(cfg, items, tmp_path):
    data = DatasetWrapper(cfg, items, is_train=True)
    first = data[3]["img"]
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert torch.equal(data[3]["img"], first)
    assert torch.equal(state, torch.get_rng_state())

    copy = tmp_path / "elsewhere.png"
    copy.write_bytes(Path(items[3].impath).read_bytes())
    moved = DatasetWrapper(cfg, [Datum(str(copy))], is_train=True)
    assert torch.equal(moved[0]["img"], first)

    data.set_epoch(1)
    assert not torch.equal(data[3]["img"], first)
    cfg.SEED = 2
    assert not torch.equal(DatasetWrapper(cfg, items, is_train=True)[3]["img"], first)


def test_view_seed_is_the_same_everywhere():
    assert view_seed(1, 2, "ab") == 6491283576191931064
    assert view_seed(12, 3, "a") != view_seed(1, 23, "a")


def test_workers_change_neither_images_nor_order(cfg, items, two_cores):
    loaders = []
    for workers in (0, 2):
        cfg.DATALOADER.NUM_WORKERS = workers
        loaders.append(build_data_loader(cfg, "RandomSampler", items, batch_size=3))
    assert loaders[1].num_workers == 2
    alone, many = ([epoch_of(loader, e) for e in range(3)] for loader in loaders)
    for (img0, paths0), (img2, paths2) in zip(alone, many, strict=True):
        assert paths0 == paths2
        assert torch.equal(img0, img2)
    assert len({tuple(paths) for _, paths in many}) == 3
    by_path = [dict(zip(paths, img, strict=True)) for img, paths in many]
    assert not any(torch.equal(by_path[0][p], by_path[1][p]) for p in by_path[0])
    again, _ = epoch_of(loaders[1], 1)
    assert torch.equal(again, many[1][0])


def test_loading_leaves_the_global_generators_alone(cfg, items):
    loader = build_data_loader(cfg, "RandomSampler", items, batch_size=3)
    state = torch.get_rng_state()
    list(loader)
    assert torch.equal(state, torch.get_rng_state())


def test_an_epoch_does_not_depend_on_those_before(cfg, items):
    sampler = build_sampler("RandomSampler", items, seed=3)
    first = list(sampler)
    assert list(sampler) == first and sorted(first) == list(range(12))
    sampler.set_epoch(4)
    fresh = build_sampler("RandomSampler", items, seed=3)
    fresh.set_epoch(4)
    assert list(sampler) == list(fresh) != first
    assert list(build_sampler("SequentialSampler", items)) == list(range(12))


def test_incomplete_last_batch_is_dropped_in_training_only(cfg, items):
    def sizes(n, is_train):
        loader = build_data_loader(cfg, data_source=items[:n], batch_size=5, is_train=is_train)
        return [len(batch["label"]) for batch in loader]

    assert sizes(12, True) == [5, 5]
    assert sizes(12, False) == [5, 5, 2]
    assert sizes(3, True) == [3]


def test_no_more_workers_than_batches_or_cores(cfg, items, monkeypatch):
    cfg.DATALOADER.NUM_WORKERS = 64
    monkeypatch.setattr(data_manager_module, "_cores", lambda: 1)
    assert build_data_loader(cfg, data_source=items, batch_size=1).num_workers == 1
    monkeypatch.setattr(data_manager_module, "_cores", lambda: 8)
    assert build_data_loader(cfg, data_source=items, batch_size=12).num_workers == 1
    monkeypatch.undo()
    assert data_manager_module._cores() >= 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read the image .*broken.png \(No such file or directory\)"),
        (b"", "cannot decode the image .*broken.png"),
        (b"not an image", "cannot decode the image .*broken.png .*its format.*damaged"),
        ("truncated", "cannot decode the image .*broken.png .*truncated"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_is_named(cfg, items, tmp_path, content, message, workers):
    path = tmp_path / "broken.png"
    if content == "truncated":
        content = Path(items[0].impath).read_bytes()[:900]
    if content is not None:
        path.write_bytes(content)
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_data_loader(cfg, data_source=[items[0], Datum(str(path))], batch_size=1)
    with pytest.raises(UserError, match=message) as caught:
        list(loader)
    if workers:  # the traceback would hold them until the garbage is collected
        loader._iterator._shutdown_workers()
    assert str(caught.value).startswith("cannot ") and "\n" not in str(caught.value)


def test_custom_transform_and_wrapper_are_used(cfg, items):
    class Constant(DatasetWrapper):
        def __getitem__(self, index):
            return {**super().__getitem__(index), "seen": 1}

    def transform(image):
        return torch.rand(3, *image.size)  # has no `draws`, so it is seeded

    loader = build_data_loader(cfg, data_source=items, tfm=transform, dataset_wrapper=Constant)
    batch = next(iter(loader))
    assert batch["seen"].sum() == 12 and batch["img"].shape == (12, 3, 30, 20)
    assert torch.equal(next(iter(loader))["img"], batch["img"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_source": []}, "no images for training"),
        ({"data_source": None, "is_train": False}, "no images for evaluation"),
        ({"batch_size": 0}, "batch size must be at least 1; got 0"),
        ({"sampler_type": "RandomSample"}, "no sampler named .*did you mean RandomSampler"),
    ],
)
def test_build_data_loader_refuses(cfg, items, options, message):
    with pytest.raises(UserError, match=message):
        build_data_loader(cfg, **{"data_source": items, **options})


def test_data_manager(cfg, items, capsys):
    cfg.VERBOSE, cfg.DATASET.NAME = True, "Twelve"
    cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.DATALOADER.TEST.BATCH_SIZE = 4, 5
    dataset = DatasetBase(items, test=items[:7], split="own")
    dm = DataManager(cfg, dataset=dataset)
    assert dm.dataset is dataset and dm.space is dataset.space
    assert (len(dm.train_loader_x), len(dm.test_loader)) == (3, 2)
    assert dm.val_loader is None and dm.train_loader_u is None
    assert dm.num_classes == 3 and dm.num_source_domains == 0
    assert dm.lab2cname == {0: "kind 0", 1: "kind 1", 2: "kind 2"}
    shown = capsys.readouterr().out
    for line in (
        "Dataset    Twelve",
        "# tasks    1",
        "# train_x  12",
        "# val      0",
        "# test     7",
    ):
        assert line in shown
    assert f"Split      own ({dataset.identity.draw[:12]})" in shown


def test_data_manager_moves_paths(cfg, items):
    cfg.DATALOADER.OLD_DATA_PATH, cfg.DATALOADER.NEW_DATA_PATH = "/old/", "/new/"
    dm = DataManager(cfg, dataset=DatasetBase([Datum("/old/a.png"), Datum("/kept/b.png")]))
    assert [d.impath for d in dm.dataset.train_x] == ["/new/a.png", "/kept/b.png"]


def test_custom_transforms_of_the_data_manager(cfg, items):
    train, test = build_transform(cfg, choices=()), build_transform(cfg, is_train=False)
    dm = DataManager(cfg, train, test, dataset=DatasetBase(items, test=items))
    assert dm.train_loader_x.dataset.transform is train
    assert dm.test_loader.dataset.transform is test


def test_registered_dataset_is_built_by_name(cfg, items, monkeypatch):
    monkeypatch.setattr(DATASET_REGISTRY, "_classes", dict(DATASET_REGISTRY._classes))

    @DATASET_REGISTRY.register()
    class Twelve(DatasetBase):
        def __init__(self, cfg):
            super().__init__(train_x=items)

    cfg.DATASET.NAME = "Twelve"
    assert isinstance(DataManager(cfg).dataset, Twelve)
    with pytest.raises(UserError, match="no dataset named 'Twelv'; did you mean Twelve"):
        build_dataset(SimpleNamespace(DATASET=SimpleNamespace(NAME="Twelv")))


def test_only_task_is_a_dataset_of_one(items):
    from dassl.data import Task, TaskSpace

    space = TaskSpace((Task("a", ("x", "y")), Task("b", ("u", "v", "w"))))
    train = [Datum("p", 1, task=0), Datum("q", 2, task=1), Datum("r", 0, task=1)]
    whole = DatasetBase(train, test=train[:2], space=space, split="own", image_roots="vw")
    alone = whole.only_task(1)
    assert [(d.impath, d.label, d.task) for d in alone.train_x] == [("q", 2, 0), ("r", 0, 0)]
    assert [d.impath for d in alone.test] == ["q"] and alone.val is None and alone.train_u is None
    assert alone.classnames == ["u", "v", "w"] and alone.space.tasks == (space.tasks[1],)
    assert (alone.split, alone.image_roots) == ("own", ("w",))


def test_datum_travels_to_workers():
    datum = Datum("a", 1, 2, "b", 3)
    assert pickle.loads(pickle.dumps(datum)) == datum


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([Datum("a", 0), Datum("b", 2)], r"without gaps; got \[0, 2\]"),
        ([Datum("a", 0, classname="x"), Datum("b", 0, classname="y")], "has two names"),
        ([Datum("a", task=1)], "several tasks need a TaskSpace"),
    ],
)
def test_dataset_without_a_space_refuses(data, message):
    with pytest.raises(UserError, match=message):
        DatasetBase(data)
