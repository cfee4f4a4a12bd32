"""List, check or delete the stored image features.

python -m clip.features info             their kinds, sizes and last use
python -m clip.features verify           read all files and images again, and
                                         delete damaged entries
python -m clip.features clear --days 30  delete those unused for 30 days;
                                         without --days: all
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from dassl.utils import counted, size_in_words
from dassl.utils.command_line import Parser, path, run_program

from ._admin import clear, parts, verify_shards
from ._digests import FILE, DigestCache
from ._paths import store_root


def main(argv: list[str] | None = None) -> int:
    """Do what the command line asks; the exit code, 1 if ``verify`` found something wrong."""
    parser = Parser(
        prog="python -m clip.features",
        description=__doc__,
    )
    parser.add_argument("action", choices=("info", "verify", "clear"), help="what to do")
    parser.add_argument(
        "--dir",
        default="",
        metavar="DIR",
        type=path,
        help="FEATURES.DIR (default: in the user's cache)",
    )
    parser.add_argument(
        "--days", type=float, metavar="N", help="with clear: only those unused for N days"
    )
    args = parser.parse_args(argv)
    if args.days is not None and args.action != "clear":
        parser.error("--days is for clear")
    if args.days is not None and not args.days >= 0:
        parser.error(f"--days takes a number of 0 or more, but is {args.days:g}")
    root = store_root(args.dir)
    if not root.is_dir():
        print(f"there is no folder {root}: nothing is stored")
        return 0
    actions = {"info": info, "verify": verify, "clear": lambda root: delete(root, args.days)}
    return actions[args.action](root)


def info(root: Path) -> int:
    """Print a line per key and view, and the total."""
    every = parts(root)
    for part in every:
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(part.used))
        kept = part.key.get("dtype") or "as computed"
        print(
            f"{part.folder.relative_to(root)}: {part.images():,} {part.key.get('output', '?')} "
            f"of {part.label or '?'} ({part.key.get('precision', '?')}, kept {kept}), "
            f"{size_in_words(part.size)}, used {day}"
        )
    size = size_in_words(sum(part.size for part in every))
    print(f"{counted(len(every), 'part')}, {size}, in {root}")
    return 0


def verify(root: Path) -> int:
    """Check the files against the digests in their names, and the digests of the images."""
    files, broken = verify_shards(root)
    images, wrong = DigestCache(root).verify()
    for line in [*broken, *wrong]:
        print(line)
    print(f"{files} files read, {len(broken)} bad; {images:,} images read, {len(wrong)} changed")
    return 1 if broken or wrong else 0


def delete(root: Path, days: float | None) -> int:
    """Delete what was unused for ``days``; None: everything."""
    removed = clear(root, None if days is None else time.time() - 86_400 * days)
    if days is None:
        (root / FILE).unlink(missing_ok=True)
    size = size_in_words(sum(part.size for part in removed))
    print(f"{counted(len(removed), 'part')}, {size}, deleted from {root}")
    return 0


if __name__ == "__main__":
    sys.exit(run_program(main))
