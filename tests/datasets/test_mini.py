"""Every registered dataset and suite, read from a miniature in its original layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dassl.config import get_cfg_default
from dassl.data import DATASET_REGISTRY
from dassl.utils import UserError
from datasets._core.base import FewShotDataset, TaskGroup
from datasets._core.mini import draw, is_mini, make_mini
from datasets._core.names import known_names
from tests.datasets.folders import load

OWN = (
    "ImageFolder",
    "TaskFolders",
    "TaskColumns",
    "Manifest",
    "Suite",
    "Digits7",
    "PartlyLabelledDigits",
)  # no published layout
SUITES = {
    "General10": [100, 47, 10, 100, 101, 102, 37, 196, 397, 101],
    "Plant6": [36, 5, 9, 15, 12, 39],
    "Fashion20": [4] * 18 + [3] * 2,  # only the sum, 78, is published
    "RS8": [45, 21, 19, 7, 38, 31, 35, 12],
}
SINGLE = [
    name
    for name in DATASET_REGISTRY.registered_names()
    if name not in OWN and issubclass(DATASET_REGISTRY.get(name), FewShotDataset)
]
MEAN_ACC = {"Caltech101", "FGVCAircraft", "OxfordFlowers", "OxfordPets", "Fashion20"}


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Miniatures of all datasets."""
    folder = tmp_path_factory.mktemp("minis")
    for name in SINGLE:
        make_mini(name, folder, per_class=4)
    return folder


@pytest.fixture(scope="session")
def whole(data):
    """Each dataset, loaded once."""
    loaded = {}
    return lambda name: loaded.get(name) or loaded.setdefault(name, load(name, data))


@pytest.mark.parametrize("name", SINGLE)
def test_numbers_and_metric(whole, name):
    dataset, cls = whole(name), DATASET_REGISTRY.get(name)
    assert dataset.num_classes == cls.num_columns > 0
    assert len(dataset.space.tasks) == cls.num_tasks
    metric = "mean_acc" if name in MEAN_ACC else "overall_acc"
    assert {task.metric for task in dataset.space.tasks} == {metric}
    assert all(task.name and task.templates[0] != "" for task in dataset.space.tasks)
    tested = {(d.task, d.label) for d in dataset.test}
    assert len(tested) >= 0.9 * cls.num_columns  # Fashion20 is not divided class by class
    assert all(Path(d.impath).is_file() for d in dataset.test)
    train, test = ({(d.impath, d.task) for d in part} for part in (dataset.train_x, dataset.test))
    assert not train & test


def shown(path):
    """The mean colour of each block of an image of a miniature."""
    size = draw.SIZE // draw.BLOCKS
    array = np.asarray(Image.open(path).convert("RGB"), dtype=float)
    return array.reshape(draw.BLOCKS, size, draw.BLOCKS, size, 3).mean((1, 3)).ravel()


def raw_names(name):
    """The name under which images of each label were drawn."""
    names = list(known_names(name))
    if name in ("ImageNet", "ImageNetV2", "ImageNetSketch"):
        return sorted(line.split(" ")[0] for line in known_names("ImageNet"))
    if name == "RSICB256":
        return sorted(names, key=lambda path: path.rpartition("/")[2])
    listed = ("OxfordPets", "OxfordFlowers", "FGVCAircraft", "StanfordCars", "SUN397", "UCF101")
    return names if name in listed else sorted(names)


@pytest.mark.parametrize("name", [name for name in SINGLE if name != "Fashion20"])
def test_images_show_the_class_of_their_label(whole, name):
    size = draw.SIZE // draw.BLOCKS
    patterns = np.stack([draw._pattern(raw)[::size, ::size].ravel() for raw in raw_names(name)])
    dataset = whole(name)
    items = [*(dataset.train_x or ()), *(dataset.val or ()), *dataset.test]
    for item in items[:: max(1, len(items) // 60)]:
        nearest = np.abs(patterns - shown(item.impath)).sum(1).argmin()
        assert nearest == item.label, item


def test_fashion_labels_follow_the_folders(whole):
    for item in whole("Fashion20").test:
        assert Path(item.impath).parts[-3:-1] == (str(item.task), str(item.label))


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("Caltech101", ["face", "leopard", "motorbike", "accordion", "airplane"]),
        ("EuroSAT", ["Annual Crop Land", "Forest", "Herbaceous Vegetation Land"]),
        ("FGVCAircraft", ["707-320", "727-200"]),
        ("OxfordPets", ["abyssinian", "american_bulldog"]),
        ("StanfordCars", ["2000 AM General Hummer SUV", "2012 Acura RL Sedan"]),
        ("UCF101", ["Apply_Eye_Makeup", "Apply_Lipstick", "Archery"]),
        ("PlantVillage", ["apple leaf with scab disease", "apple leaf with black rot"]),
        ("AID", ["airport", "bare land", "baseball field"]),
        ("WHURS19", ["airport", "beach"]),
        ("RSSCN7", ["grass", "field", "industry", "river or lake"]),
        ("ImageNet", ["tench", "goldfish"]),
        ("ImageNetA", ["stingray", "goldfinch"]),
        ("ImageNetR", ["goldfish", "great white shark"]),
        ("Fashion20", ["invented pants type 1"]),
    ],
)
def test_class_names(whole, name, names):
    assert whole(name).classnames[: len(names)] == names


def test_other_class_names(whole):
    assert "indoor apse" in whole("SUN397").classnames
    assert {"football field", "railway station"} <= set(whole("WHURS19").classnames)
    imagenet = whole("ImageNet").classnames
    assert {"missile", "projectile", "sunglass", "sunglasses"} <= set(imagenet)
    for variant in ("ImageNetV2", "ImageNetSketch"):
        assert whole(variant).classnames == imagenet
    assert set(whole("ImageNetA").classnames) < set(imagenet)


def test_templates(whole):
    plain = "a photo of a {}."
    said = {name: whole(name).space.tasks[0].templates for name in SINGLE}
    assert said["OxfordPets"] == ("a photo of a {}, a type of pet.",)
    assert said["KaggleFlower"] == said["OxfordFlowers"] == ("a photo of a {}, a type of flower.",)
    assert said["EuroSAT"] == ("a centered satellite photo of {}.",)
    assert said["PlantVillage"] == ("a photo of a plant leaf with {} disease.",)
    for name in ("StanfordCars", "SUN397", "Caltech101", "ImageNet", "ImageNetR"):
        assert said[name] == (plain,)
    kinds = [task.templates[0].split("type of ")[1] for task in whole("Fashion20").space.tasks]
    expected = ["pants."] * 3 + ["tops."] * 4 + ["shoes."] * 7
    assert kinds == [*expected, "hat.", "socks.", "socks.", "skirt.", "tops.", "underwear."]


@pytest.mark.parametrize("name", SUITES)
def test_suites(data, name):
    suite, sizes = load(name, data, NUM_SHOTS=1), SUITES[name]
    assert suite.space.sizes == sizes
    assert len(suite.train_x) <= sum(sizes) == {"General10": 1191}.get(name, sum(sizes))
    base, new = (load(name, data, SUBSAMPLE_CLASSES=half) for half in ("base", "new"))
    assert base.space.sizes == [-(-n // 2) for n in sizes]
    assert new.space.sizes == [n // 2 for n in sizes]
    one = load(name, data, SUBSAMPLE_TASKS="task1")
    assert one.space.tasks == suite.space.tasks[1:2] and {d.task for d in one.test} == {0}
    halves = [load(name, data, SUBSAMPLE_TASKS=half).space.tasks for half in ("base", "new")]
    assert halves[0] + halves[1] == suite.space.tasks and len(halves[0]) == -(-len(sizes) // 2)


def test_sums_of_the_suites():
    assert [sum(sizes) for sizes in SUITES.values()] == [1191, 116, 78, 208]


def test_base_and_new_classes_of_general10(data):
    sizes = [load("General10", data, SUBSAMPLE_CLASSES=h).space.sizes for h in ("base", "new")]
    assert sizes == [
        [50, 24, 5, 50, 51, 51, 19, 98, 199, 51],
        [50, 23, 5, 50, 50, 51, 18, 98, 198, 50],
    ]


def test_general10_has_coops_order(data):
    names = [member.__name__ for member in DATASET_REGISTRY.get("General10").members]
    assert names[:3] == ["Caltech101", "DescribableTextures", "EuroSAT"] and len(names) == 10
    suite = load("General10", data, SUBSAMPLE_TASKS="task3")
    assert suite.classnames[0] == "707-320" and suite.space.tasks[0].metric == "mean_acc"


def test_official_division_is_what_other_projects_mean(data):
    for split in ("auto", "zhou", "dk", "own"):
        assert load("FGVCAircraft", data, SPLIT=split).split == "official"
    assert not [*(data / "fgvc_aircraft").glob("split_own*")]


def test_names_of_tasks_template_and_metric_can_be_given(data):
    pets = load(
        "OxfordPets", data, TASK_NAMES=("pet",), TEMPLATE="art of a {}.", METRIC="overall_acc"
    )
    task = pets.space.tasks[0]
    assert (task.name, task.templates, task.metric) == ("pet", ("art of a {}.",), "overall_acc")
    with pytest.raises(UserError, match="TASK_NAMES must name each of the 6 tasks"):
        load("Plant6", data, TASK_NAMES=("plant",))


def test_miniatures_stay_and_do_not_overwrite(tmp_path):
    (folder,) = make_mini("KaggleFlower", tmp_path)
    images = sorted(folder.rglob("*.jpg"))
    assert is_mini(folder) and len(images) == 5 * 6
    times = [path.stat().st_mtime_ns for path in images]
    assert make_mini("KaggleFlower", tmp_path, per_class=9) == [folder]
    assert [path.stat().st_mtime_ns for path in images] == times
    assert [path.name for path in tmp_path.iterdir()] == ["kaggle_flower_recognition"]
    (folder / "miniature.txt").unlink()
    with pytest.raises(UserError, match="is no miniature"):
        make_mini("KaggleFlower", tmp_path)
    with pytest.raises(UserError, match="at least"):
        make_mini("KaggleFlower", tmp_path / "b", per_class=3)
    for name in ("Digits7", "Suite"):
        with pytest.raises(UserError, match="has no files of its own"):
            make_mini(name, tmp_path / "c")


@pytest.mark.parametrize("columns", [0, 4])
def test_a_dataset_whose_class_names_are_unknown(tmp_path, columns):
    class FillLevel(FewShotDataset):
        dataset_dir, num_columns = "fill", columns

    DATASET_REGISTRY.register()(FillLevel)
    try:
        (folder,) = make_mini("FillLevel", tmp_path)
    finally:
        del DATASET_REGISTRY._classes["FillLevel"]
    assert len(list((folder / "images").glob("class_*/*.jpg"))) == 6 * (columns or 3)
    assert "INVENTED" in (folder / "miniature.txt").read_text()


def test_every_dataset_has_a_yaml():
    configs = Path(__file__).parents[2] / "configs" / "datasets"
    named = {}
    for path in configs.glob("*.yaml"):
        cfg = get_cfg_default()
        cfg.merge_from_file(path)
        named[cfg.DATASET.NAME] = path.stem
    assert sorted(named) == DATASET_REGISTRY.registered_names()
    for name, stem in named.items():
        assert DATASET_REGISTRY.get(name).__module__.rpartition(".")[2] == stem


def test_pages_on_datasets_say_what_the_code_does():
    pages = (Path(__file__).parents[2] / "docs/datasets").glob("*.md")
    page = "\n".join(path.read_text(encoding="utf-8") for path in pages)
    for name in SINGLE:
        cls = DATASET_REGISTRY.get(name)
        images = f"{cls.dataset_dir}/{cls.image_dir}".rstrip("/")
        sizes = " / ".join(f"{size:,}" for size in cls.sizes) or "not published"
        task = cls.task_name or "from its table"
        row = f"| {name} | `{images}/` | {cls.num_columns} | {sizes} | {cls.metric} | {task} |"
        assert row in page and f"- **{name}**:" in page


def test_suites_import_only_their_members():
    for name in ("General10", "Plant6", "RS8"):
        cls = DATASET_REGISTRY.get(name)
        assert issubclass(cls, TaskGroup) and all(m.__name__ in SINGLE for m in cls.members)
