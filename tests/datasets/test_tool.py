"""python -m datasets: what it says, and its exit codes."""

import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from dassl.data import DATASET_REGISTRY
from dassl.utils import UserError
from datasets.__main__ import command
from datasets._core.mini import make_mini
from tests.datasets.folders import fill

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(tmp_path, monkeypatch, capsys):
    """Runs the tool in an empty folder: the exit code, what it printed, and the errors."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*argv):
        monkeypatch.setattr(sys, "argv", ["datasets", *map(str, argv)])
        code = command()
        return code, *capsys.readouterr()

    yield run
    left = {path.name for path in (tmp_path / "here").iterdir()}
    assert left <= {"output"}  # nothing else is written where one happens to be


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_list_names_all(tool):
    code, out, _ = tool("list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == DATASET_REGISTRY.registered_names()
    rows = {line.split()[0]: line.split()[1:3] for line in out.splitlines()[1:]}
    assert rows["General10"] == ["10", "1191"] and rows["RS8"] == ["8", "208"]
    assert rows["Fashion20"] == ["20", "78"] and rows["Plant6"] == ["6", "116"]


def test_check_of_a_suite_writes_nothing(tool, tmp_path):
    assert tool("make-mini", "Plant6", tmp_path / "d", "--per-class", 4)[0] == 0
    before = files(tmp_path / "d")
    code, out, _ = tool("check", "Plant6", "--root", tmp_path / "d")
    assert code == 0 and out.count("  fine\n") == 6 and "a miniature" in out
    assert files(tmp_path / "d") == before
    assert "task (kind of garden flower): 5 classes with 2 train, 1 val, 1 test" in out


def test_numbers_are_compared_with_the_published(tool, tmp_path):
    (folder,) = make_mini("RSSCN7", tmp_path)
    (folder / "miniature.txt").unlink()
    shutil.rmtree(folder / "aGrass")
    code, out, _ = tool("check", "RSSCN7", "--root", tmp_path)
    assert code == 1
    assert "PROBLEM  the published numbers are 2,800 images in all" in out
    assert "PROBLEM  6 classes in 1 tasks, but 7 in 1 are published" in out
    assert "problems in 1 of 1 dataset: RSSCN7" in out


def test_images_in_two_parts_are_found(tool, tmp_path):
    make_mini("KaggleFlower", tmp_path)
    entries = [[f"{c}/0001.jpg", i, c] for i, c in enumerate(["daisy", "rose"])]
    split = {"train": entries, "val": [["rose/0002.jpg", 1, "rose"]], "test": entries[:1]}
    path = tmp_path / "kaggle_flower_recognition" / "split_zhou_KaggleFlower.json"
    path.write_text(str(split).replace("'", '"'))
    code, out, _ = tool("check", "KaggleFlower", "--root", tmp_path)
    assert code == 1 and "1 images are in train and test: daisy/0001.jpg" in out
    assert "files there: zhou" in out and "no test image of 1 classes: rose" in out


def test_deep_check_names_unreadable_images_and_copies(tool, tmp_path):
    fill(tmp_path / "a" / "train", {"x": 3, "y": 3})
    fill(tmp_path / "a" / "test", {"x": 3, "y": 3})
    for number, path in enumerate(sorted((tmp_path / "a").rglob("*.jpg"))):
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(path)
    good = tmp_path / "a" / "train" / "x" / "00.jpg"
    (tmp_path / "a" / "test" / "x" / "01.jpg").write_bytes(good.read_bytes())
    (tmp_path / "a" / "test" / "y" / "02.jpg").write_bytes(good.read_bytes()[:-30])
    assert tool("check", "ImageFolder", "--root", tmp_path / "a")[0] == 0
    code, out, err = tool("check", "ImageFolder", "--root", tmp_path / "a", "--deep")
    assert code == 1 and "decoded 11 of 12 images" in out
    assert "test/y/02.jpg" in out and "it is damaged" in out
    assert "1 test images are byte for byte images of train or val: test/x/01.jpg = train/x" in out
    assert "image/s" in err  # the progress bar


def test_deep_check_counts_transparent_and_rotated_images(tool, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(20):
        folder = tmp_path / "a" / ("x" if number < 10 else "y")
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGBA", (8, 4), (number * 10, 0, 0, 128 if number < 3 else 255))
        image.save(folder / f"{number}.png", **({"exif": exif} if number == 4 else {}))
    words = ("check", "ImageFolder", "--root", tmp_path / "a", "--deep")
    code, out, _ = tool(*words)
    assert code == 0 and "3 images with transparent pixels" in out
    assert "1 image with an EXIF rotation that is not applied; INPUT.EXIF apply" in out
    assert "EXIF" not in tool(*words, "INPUT.EXIF", "apply")[1]
    assert "transparent" not in tool(*words[:-1])[1]


def test_unreadable_images_are_not_all_listed(tool, tmp_path):
    fill(tmp_path / "a", {"x": 20, "y": 4})
    code, out, _ = tool("check", "ImageFolder", "--root", tmp_path / "a", "--deep")
    assert code == 1 and out.count("cannot decode") == 10 and "and 14 more images" in out


@pytest.mark.parametrize(
    ("there", "hint"),
    [
        ("Oxford-Pets/images", "but there is .*/Oxford-Pets: rename it with  mv '.*' '.*oxford_pe"),
        ("oxford_pets/oxford-iiit-pet/images", "one folder deeper: move it up with  mv "),
        ("oxford_pets/Images", "but there is .*/Images: rename it with  mv '.*' '.*/images'"),
        ("images", "looks like the dataset's own folder"),
        ("oxford_pets/pictures", "oxford_pets holds pictures"),
        ("cats", "give the folder that holds oxford_pets/ with --root"),
    ],
)
def test_near_misses_come_with_what_to_do(tool, tmp_path, there, hint):
    (tmp_path / "d" / there).mkdir(parents=True)
    code, out, _ = tool("check", "OxfordPets", "--root", tmp_path / "d")
    assert code == 1
    with pytest.raises(UserError, match=rf"there is no folder .*/oxford_pets/images; .*{hint}"):
        raise UserError(out)


def test_command_of_a_near_miss_mends_it(tool, tmp_path):
    (folder,) = make_mini("KaggleFlower", tmp_path)
    folder.rename(tmp_path / "Kaggle-Flower-Recognition")
    _, out, _ = tool("check", "KaggleFlower", "--root", tmp_path)
    source, target = out.split("mv '")[1].split("\n")[0].rstrip("'").split("' '")
    Path(source).rename(target)
    assert tool("check", "KaggleFlower", "--root", tmp_path)[0] == 0


def test_show_writes_a_sheet(tool, tmp_path):
    make_mini("TaskFolders", tmp_path / "t")
    code, out, _ = tool("show", "TaskFolders", "--root", tmp_path / "t")
    assert (code, out) == (0, "output/datasets/TaskFolders.png: 5 of 5 classes\n")
    with Image.open("output/datasets/TaskFolders.png") as sheet:
        small, pixels = sheet.size, sheet.convert("RGB").getcolors(10**7)
    assert len(pixels) > 1000  # photographs, not only paper and ink
    options = ("--output", tmp_path / "s.png", "--classes", 3, "--images", 1)
    code, out, _ = tool("show", "TaskFolders", "--root", tmp_path / "t", *options)
    assert code == 0 and "3 of 5 classes" in out
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.size[0] < small[0] and sheet.size[1] <= small[1]


def test_yaml_and_overrides(tool, tmp_path):
    make_mini("OxfordPets", tmp_path, per_class=4)
    fill(tmp_path / "bolts", {"a": 4, "b": 4})
    fill(tmp_path / "leaves", {"a": 4, "b": 4})
    yaml = ROOT / "configs/datasets/suite.yaml"
    code, out, _ = tool("check", yaml, "--root", tmp_path)
    assert code == 0 and out.count("  fine") == 3 and "task (kind of bolt): 2 classes" in out
    code, out, _ = tool("check", yaml, "--root", tmp_path, "DATASET.SPLIT", "zhou")
    assert code == 1 and out.count("PROBLEM  DATASET.SPLIT is zhou, but there is no file") == 3


def test_collections_are_looked_at_too(tool, tmp_path):
    code, out, _ = tool("check", "VQAv2", "--root", tmp_path)
    assert code == 1 and "PROBLEM  VQAv2: there is no folder" in out
    code, out, _ = tool("check", "DigitQuestions")
    assert code == 0 and "no files to check" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["check", "OxfordPet"], "did you mean OxfordPets"),
        (["check", "OxfordPets", "DATASET.ROT", "x"], "no config key named 'DATASET.ROT'"),
        (["check", "no.yaml"], "there is no configuration file no.yaml"),
        (["check", "Suite"], "takes its datasets from DATASET.MEMBERS"),
        (["show", "OxfordPets"], "needs a data folder"),
        (["show", "OxfordPets", "--classes", "0"], "must be at least 1"),
        (["check", "OxfordPets", "--deeep"], "did you mean --deep?"),
        (["make-mini", "Suite", "x"], "has no files of its own"),
        (["shots", "OxfordPets"], "one of the arguments --export --import is required"),
        (["shots", "OxfordPets", "--export", "x"], "give DATASET.NUM_SHOTS 16 SEED 1"),
        (
            ["shots", "Flickr30k", "--export", "x", "DATASET.NUM_SHOTS", "1", "SEED", "1"],
            "Flickr30k has no folder",
        ),
        (["chekc"], "invalid choice: 'chekc'"),
        ([], "required: command"),
    ],
)
def test_unusable_command_is_one_line(tool, argv, message):
    code, out, err = tool(*argv)
    assert code == 2 and out == ""
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
