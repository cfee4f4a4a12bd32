"""One function per layout: it writes the images and annotation files that a dataset's reader needs.

It takes the dataset's class, its folder and the number of images per class, and returns the origin
of the class names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ..names import known_names
from .draw import save, write_mat

PUBLIC = "the public ones"
UNKNOWN = "INVENTED: the real ones are not in datasets/_core/names/"
INVENTED = "INVENTED: the real ones are not public"
MAKERS: dict[str, Callable[[type, Path, int], str]] = {}
EXTRA = {"Caltech101": ("BACKGROUND_Google", "Faces_easy")}  # folders that the reader skips
SUFFIXES = {"UCMerced": "tif", "SIRIWHU": "tif"}


def maker(*names: str):
    """Register the function that writes miniatures of these datasets."""

    def add(function):
        MAKERS.update(dict.fromkeys(names, function))
        return function

    return add


def parts_of(count: int) -> tuple[int, int]:
    """Numbers of training and test images of a class; a third is for testing."""
    return count - max(1, count // 3), max(1, count // 3)


def write_lines(path: Path, lines: list[str]) -> None:
    """A text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def class_folders(cls: type, folder: Path, count: int) -> str:
    """``<image_dir>/<class>/<image>``, the layout of most."""
    suffix, known = SUFFIXES.get(cls.__name__, "jpg"), known_names(cls.__name__)
    names = known or [f"class_{i + 1}" for i in range(cls.num_columns or 3)]
    for name in (*names, *EXTRA.get(cls.__name__, ())):
        for i in range(count):
            save(folder / cls.image_dir / name / f"{i + 1:04d}.{suffix}", name, i)
    return PUBLIC if known else UNKNOWN


@maker("FruitVegetable", "KaggleVegetable")
def three_parts(cls: type, folder: Path, count: int) -> str:
    """``images/{train,test,validation}/<class>/<image>``."""
    for name in known_names(cls.__name__):
        for p, part in enumerate(("train", "test", "validation")):
            for i in range(count):
                save(folder / "images" / part / name / f"{i + 1:04d}.jpg", name, p * count + i)
    return PUBLIC


@maker("OxfordPets")
def pets(cls: type, folder: Path, count: int) -> str:
    """``images/<Breed>_<i>.jpg`` and two lists."""
    lists = {"trainval": [], "test": []}
    for label, name in enumerate(known_names("OxfordPets"), start=1):
        for i in range(count):
            image = f"{name}_{i + 1}"
            save(folder / "images" / f"{image}.jpg", name, i)
            part = "trainval" if i < parts_of(count)[0] else "test"
            lists[part].append(f"{image} {label} {1 if name[0].isupper() else 2} 1")
    for part, lines in lists.items():
        write_lines(folder / "annotations" / f"{part}.txt", lines)
    return PUBLIC


@maker("OxfordFlowers")
def flowers(cls: type, folder: Path, count: int) -> str:
    """``jpg/image_<number>.jpg``, labels in a MATLAB file, names in JSON."""
    names, labels = known_names("OxfordFlowers"), []
    for i in range(count):
        for label, name in enumerate(names, start=1):
            labels.append(label)
            save(folder / "jpg" / f"image_{len(labels):05d}.jpg", name, i)
    write_mat(folder / "imagelabels.mat", {"labels": [labels]})
    content = {str(i): name for i, name in enumerate(names, start=1)}
    write_lines(folder / "cat_to_name.json", [json.dumps(content)])
    return PUBLIC


@maker("FGVCAircraft")
def aircraft(cls: type, folder: Path, count: int) -> str:
    """``images/<number>.jpg`` and a list per part."""
    names = known_names("FGVCAircraft")
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(names):
        for i in range(count):
            number = f"{1000000 + label * count + i}"
            save(folder / "images" / f"{number}.jpg", name, i)
            lists[("train", "train", "val", "test")[i % 4]].append(f"{number} {name}")
    write_lines(folder / "variants.txt", list(names))
    for part, lines in lists.items():
        write_lines(folder / f"images_variant_{part}.txt", lines)
    return PUBLIC


@maker("StanfordCars")
def cars(cls: type, folder: Path, count: int) -> str:
    """``cars_{train,test}/<number>.jpg`` and MATLAB files."""
    names = known_names("StanfordCars")
    files = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for (part, file), number in zip(files.items(), parts_of(count), strict=True):
        rows = []
        for i in range(number):
            for label, name in enumerate(names, start=1):
                image = f"{len(rows) + 1:05d}.jpg"
                save(folder / f"cars_{part}" / image, name, i + (part == "test") * count)
                rows.append((1, 1, 32, 32, label, image))
        fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
        write_mat(folder / file, {"annotations": rows}, fields)
    write_mat(folder / "devkit/cars_meta.mat", {"class_names": [list(names)]})
    return PUBLIC


@maker("SUN397")
def sun(cls: type, folder: Path, count: int) -> str:
    """``SUN397/<letter>/<class>/<image>``, some classes a folder deeper, and lists."""
    names = known_names("SUN397")
    lists: dict[str, list[str]] = {"Training_01": [], "Testing_01": []}
    for name in names:
        for i in range(count):
            image = f"{name}/sun_{i + 1:04d}.jpg"
            save(folder / "SUN397" / image.lstrip("/"), name, i)
            lists["Training_01" if i < parts_of(count)[0] else "Testing_01"].append(image)
    for file, lines in {"ClassName": list(names), **lists}.items():
        write_lines(folder / f"{file}.txt", lines)
    return PUBLIC


@maker("UCF101")
def ucf(cls: type, folder: Path, count: int) -> str:
    """``UCF-101-midframes/<Action_Name>/<video>.jpg`` and lists of videos."""
    names = known_names("UCF101")
    lists: dict[str, list[str]] = {"trainlist01": [], "testlist01": []}
    for label, name in enumerate(names, start=1):
        spaced = "".join(f"_{c}" if c.isupper() else c for c in name).lstrip("_")
        for i in range(count):
            video = f"v_{name}_g{i + 1:02d}_c01"
            save(folder / cls.image_dir / spaced / f"{video}.jpg", name, i)
            if i < parts_of(count)[0]:
                lists["trainlist01"].append(f"{name}/{video}.avi {label}")
            else:
                lists["testlist01"].append(f"{name}/{video}.avi")
    lists["classInd"] = [f"{label} {name}" for label, name in enumerate(names, start=1)]
    for file, lines in lists.items():
        write_lines(folder / "ucfTrainTestlist" / f"{file}.txt", lines)
    return PUBLIC


@maker("ImageNet")
def imagenet(cls: type, folder: Path, count: int) -> str:
    """``images/{train,val}/<WordNet id>/<image>``."""
    lines = known_names("ImageNet")
    for wnid in (line.split(" ")[0] for line in lines):
        for part, number in zip(("train", "val"), parts_of(count), strict=True):
            for i in range(number):
                path = folder / "images" / part / wnid / f"{wnid}_{part}_{i + 1}.JPEG"
                save(path, wnid, i + (part == "val") * count)
    write_lines(folder / "classnames.txt", list(lines))
    return PUBLIC


@maker("ImageNetV2", "ImageNetSketch", "ImageNetA", "ImageNetR")
def imagenet_test(cls: type, folder: Path, count: int) -> str:
    """``<image_dir>/<WordNet id>/<image>``; V2's folders are numbered."""
    lines = known_names("ImageNet")
    wnids = known_names(cls.subset) or [line.split(" ")[0] for line in lines]
    for label, wnid in enumerate(wnids):
        name = str(label) if cls.__name__ == "ImageNetV2" else wnid
        for i in range(parts_of(count)[1]):
            save(folder / cls.image_dir / name / f"{i + 1:04d}.jpeg", wnid, 2 * count + i)
    write_lines(folder / "classnames.txt", list(lines))
    write_lines(folder / cls.image_dir / "README.txt", ["A README.txt, as in the archive."])
    return PUBLIC


FASHION_TASKS = (  # as SoftCPT's code has them
    *("pants type", "pants length", "waist type", "collar type", "sleeve type"),
    *("sleeve length", "top pattern", "shoe material", "shoe style", "heel shape"),
    *("heel thickness", "heel height", "upper height", "toe cap style", "hat style"),
    *("socks length", "socks type", "skirt length", "number of button rows", "underwear style"),
)


@maker("Fashion20")
def fashion(cls: type, folder: Path, count: int) -> str:
    """``images/<task>/<class>/<image>`` and a table of names; 18 x 4 + 2 x 3 = 78 classes."""
    lines = ["id\ttask\tdescription\tclasses"]
    for t, words in enumerate(FASHION_TASKS):
        names = [f"invented {words} {c + 1}" for c in range(4 if t < 18 else 3)]
        for c, name in enumerate(names):
            for i in range(3 * count):  # since the whole task is divided, not each class
                save(folder / "images" / str(t) / str(c) / f"{i + 1:04d}.jpg", name, i)
        lines.append(f"{t}\t{words}\tclassify {words}\t{','.join(names)}")
    write_lines(folder / "task_info.csv", lines)
    return INVENTED


SHAPES = {"kind of bolt": ("hex", "eye_bolt", "carriage"), "kind of leaf": ("oak", "maple")}


@maker("ImageFolder")
def image_folder(cls: type, folder: Path, count: int) -> str:
    """``<class>/<image>`` and a file with the task's name."""
    task, names = next(iter(SHAPES.items()))
    for name in names:
        for i in range(count):
            save(folder / name / f"{i + 1:04d}.png", name, i)
    write_lines(folder / "task_name.txt", [task])
    return INVENTED


@maker("TaskFolders")
def task_folders(cls: type, folder: Path, count: int) -> str:
    """``<task>/<class>/<image>``."""
    for task, names in SHAPES.items():
        for name in names:
            for i in range(count):
                save(folder / task.replace(" ", "_") / name / f"{i + 1:04d}.png", name, i)
    return INVENTED


@maker("Manifest")
def manifest(cls: type, folder: Path, count: int) -> str:
    """``manifest.csv`` and a folder of images."""
    lines = ["path,class,task"]
    for task, names in SHAPES.items():
        for name in names:
            for i in range(count):
                save(folder / "images" / f"{name}_{i + 1}.png", name, i)
                lines.append(f"images/{name}_{i + 1}.png,{name},{task}")
    write_lines(folder / "manifest.csv", lines)
    return INVENTED


@maker("TaskColumns")
def task_columns(cls: type, folder: Path, count: int) -> str:
    """``manifest.csv`` with a column per task; every third field is empty."""
    tasks = list(SHAPES)
    lines = [",".join(["path", *tasks])]
    for i in range(count * max(map(len, SHAPES.values()))):
        labels = [names[i % len(names)] for names in SHAPES.values()]
        save(folder / "images" / f"{i + 1:04d}.png", labels[0], i)
        shown = ["" if (i + t) % 3 == 2 else label for t, label in enumerate(labels)]
        lines.append(",".join([f"images/{i + 1:04d}.png", *shown]))
    write_lines(folder / "manifest.csv", lines)
    return INVENTED
