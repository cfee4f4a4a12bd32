"""Images in folders: recognizing them, listing them by class, finding those that a split lacks."""

from __future__ import annotations

import os
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from stat import S_ISREG

from PIL import Image, features

from dassl.data import SPLITS, Datum
from dassl.utils import Problems, UserError, counted, listdir_nohidden, shorten_list
from dassl.utils.files import list_folder

from .splits import Split, is_text, stays_inside

AVIF = " .avif" if "avif" in features.modules and features.check("avif") else ""  # Pillow 11.3
IMAGE_SUFFIXES = tuple(
    f".jpg .jpeg .jpe .jfif .png .bmp .gif .tif .tiff .webp .ppm .pgm .jp2{AVIF}".split()
)
PATH_COLUMNS = ("path", "image", "impath", "file", "filename", "filepath")  # of tables of images
APPLE_DOUBLE = "._"  # begins the names of files in which macOS keeps attributes of other files
RECORD_FOLDERS = ("split_fewshot",)  # written by this project beside the images


def is_image(name: str) -> bool:
    """Whether a file name is that of an image, and not hidden."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def folders_in(root: Path, ignored: Iterable[str] = ()) -> list[str]:
    """The sorted names of the folders in ``root``; a broken link is refused."""
    left_out, names = {*ignored, *RECORD_FOLDERS}, []
    for name in listdir_nohidden(root):
        path = root / name
        if name in left_out:
            continue
        if path.is_symlink() and not os.path.exists(path):
            raise UserError(f"{path} is a link that leads nowhere or to itself; mend or remove it")
        if path.is_dir():
            if not is_text(name):
                raise UserError(f"the name {name!r} in {root} is not valid UTF-8; rename it")
            names.append(name)
    return names


def images_by_class(
    root: Path, ignored: Iterable[str] = (), prefix: str = ""
) -> dict[str, list[str]]:
    """Images by class folder: ``root/<class>/<image>``, both sorted.

    Args:
        prefix: put before the paths ``<class>/<image>``.
    """
    classes, unread, problems = {}, loose_images(root), Problems()
    for name in folders_in(root, ignored):
        with problems.collecting():
            entries = list_folder(root / name)
            files = sorted(file for file in entries if is_image(file))
            unread += _unread_images(root / name, sorted(set(entries) - set(files)))
            classes[name] = [f"{prefix}{name}/{file}" for file in files]
            _check_class_folder(root / name, files)
    problems.report()
    if not classes:
        raise UserError(f"{root} has no folder in it; expected one folder of images per class")
    report_unread(root, unread)
    return classes


def _check_class_folder(folder: Path, files: Sequence[str]) -> None:
    """Refuse a folder without images, and names of images that are not valid UTF-8."""
    for path in (f"{folder}/{file}" for file in files):
        if not is_text(path):
            raise UserError(f"the file name {path!r} is not valid UTF-8; rename the file")
    if not files:
        raise _no_images(folder)


def report_unread(root: Path, unread: Sequence[str]) -> None:
    """Print how many images below ``root`` are not read, with an example."""
    if unread:
        print(
            f"not read: {counted(len(unread), 'image')} in {root}, such as {unread[0]}: images "
            f"must be directly in the folder of their class, neither name may begin with a dot, "
            f"and the suffix must be known ({' '.join(IMAGE_SUFFIXES)})"
        )


def loose_images(root: Path) -> list[str]:
    """Images beside the class or task folders, and in folders whose name begins with a dot."""
    found = [name for name in listdir_nohidden(root) if is_image(name) and (root / name).is_file()]
    hidden = sorted(name for name in list_folder(root) if name.startswith("."))
    return found + [image for name in hidden for image in images_below(root / name)]


def images_below(folder: Path) -> list[str]:
    """Images at any depth, relative to the parent of the folder; none if it is a file."""
    return [
        os.path.relpath(os.path.join(inner, file), folder.parent)
        for inner, _, files in os.walk(folder)
        for file in sorted(files)
        if is_image(file)
    ]


def _unread_images(folder: Path, entries: list[str]) -> list[str]:
    """Images of a class folder that are not read: hidden, in a folder, or of another suffix."""
    found: list[str] = []
    by_kind: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for name in entries:
        path = folder / name
        if path.is_file() and not name.startswith(APPLE_DOUBLE):
            by_kind[name.startswith("."), path.suffix.lower()].append(name)
        found += [f"{folder.name}/{image}" for image in images_below(path)]
    for names in by_kind.values():
        if _opens(folder / names[0]):  # one file answers for all of its suffix
            found += [f"{folder.name}/{name}" for name in names]
    return found


def _opens(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except Exception:  # Pillow raises nearly anything about files that are no images
        return False


def _no_images(folder: Path) -> UserError:
    if inner := folders_in(folder):
        return UserError(
            f"the class folder {folder} has no images but folders, such as {inner[0]}; expected "
            f"are images, <class>/<image>: is {folder} the folder to give, or are its folders to "
            "be moved up?"
        )
    return UserError(
        f"the class folder {folder} has no images; fill it or remove it (file names of images "
        f"end in {', '.join(IMAGE_SUFFIXES)})"
    )


def read_folders(root: Path, rng: random.Random, ignored: Iterable[str] = ()) -> Split:
    """``root/<class>/<image>``, divided class by class; the classes are the sorted folders."""
    classes = images_by_class(root, ignored)
    split, problems = Split([tuple(classes)]), Problems()
    for label, (name, paths) in enumerate(classes.items()):
        with problems.collecting():
            split.divide_class([Datum(path, label) for path in paths], rng, root / name)
    problems.report()
    return split


def camel_case_to_words(name: str) -> str:
    """``BareLand`` and ``footballField`` as words: bare land, football field."""
    return " ".join(re.findall("[A-Za-z][^A-Z]*", name)).lower()


def missing_images(root: Path, paths: Sequence[str]) -> list[str]:
    """The relative ``paths`` without a file below ``root``; each folder is listed once."""
    wanted: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        wanted[path.rpartition("/")[0]].append(path)
    missing = []
    for folder, group in wanted.items():
        try:
            there = set(os.listdir(root / folder))
        except OSError:
            there = set()
        missing += [path for path in group if path.rpartition("/")[2] not in there]
    return missing


def check_split_files(split: Split, root: Path, source: object) -> None:
    """Refuse a split with images that are missing or outside ``root``.

    Args:
        source: the file or files that the split comes from.
    """
    paths = [d.impath for part in split.parts for d in part]
    for path in paths:
        if not stays_inside(path):
            raise UserError(
                f"{source} has the path {path[:80]!r}; it must be relative to {root} and stay "
                "inside it"
            )
    if missing := missing_images(root, list(dict.fromkeys(paths))):
        raise UserError(
            f"{source} names images that are not in {root}: {shorten_list(missing)}; "
            "put them back, or take the split that belongs to these images (delete it if it is "
            "one of this project's own)"
        )


def file_sizes(root: Path, items: Iterable[Datum]) -> list[int]:
    """Bytes of each image; an empty or unreachable one is refused."""
    return [_stat(root, item.impath).st_size for item in items]


def refuse_same_files(root: Path, parts: Iterable[Iterable[Datum]]) -> None:
    """Refuse an image that a task has under two paths, and images as :func:`file_sizes` does.

    Two spellings of a path, letters of another case on some disks, and symbolic links all lead to
    one file. Hard links are accepted, since tools that save disk space create them.
    """
    seen: dict[tuple[int, int, int], str] = {}
    problems = Problems()
    for item in (item for part in parts for item in part):
        with problems.collecting():
            _refuse_same_file(root, item, seen)
    problems.report()


def _refuse_same_file(root: Path, item: Datum, seen: dict[tuple[int, int, int], str]) -> None:
    """Refuse an image whose file was seen before, by task, device and number of the file."""
    stat = _stat(root, item.impath)
    if stat.st_nlink > 1 or not stat.st_ino:
        return
    first = seen.setdefault((item.task, stat.st_dev, stat.st_ino), item.impath)
    if first != item.impath:
        raise UserError(
            f"{first} and {item.impath} in {root} are one and the same image (a link, or two "
            "spellings of its path): remove one of them, so that no image is in train and test"
        )


def shared_images(
    parts: Sequence[Iterable[Datum]], val_is_test: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """The parts that share images, such as "train and test", and the paths of these images.

    Args:
        parts: train, val and test.
        val_is_test: val and test are the same on purpose.
    """
    images = [{(d.impath, d.task) for d in part} for part in parts]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        if (a, b) == (1, 2) and val_is_test:
            continue
        if both := sorted(path for path, _ in images[a] & images[b]):
            yield f"{SPLITS[a]} and {SPLITS[b]}", both


def _stat(root: Path, relative: str) -> os.stat_result:
    path = f"{root}/{relative}"
    try:
        stat = os.stat(path)
    except OSError as error:
        raise UserError(f"cannot read the image {path} ({error.strerror})") from None
    if not S_ISREG(stat.st_mode):
        raise UserError(f"cannot read the image {path}: it is no file; remove or rename it")
    if stat.st_size == 0:
        raise UserError(
            f"the image {path} is empty (0 bytes); replace it, or take it out of the dataset and "
            "its split"
        )
    return stat


def read_parts(root: Path, parts: Sequence[str], rng: random.Random) -> Split:
    """``root/<part>/<class>/<image>``: each part split separately, all with the same classes.

    SoftCPT does so with datasets whose own split it does not use.
    """
    split = None
    for part in parts:
        classes = images_by_class(root / part, prefix=f"{part}/")
        split = split or Split([tuple(classes)])
        if strange := set(classes) ^ set(split.classnames[0]):
            raise UserError(
                f"{root / part} and {root / parts[0]} do not have the same class folders: "
                f"{shorten_list(sorted(strange))}"
            )
        for label, (name, paths) in enumerate(classes.items()):
            split.divide_class([Datum(path, label) for path in paths], rng, root / part / name)
    return split
