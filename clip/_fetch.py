"""Finding weight files: on this machine first, then where they are published."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

from tqdm import tqdm

from ._errors import CLIPError
from ._files import atomic_path, sha256_of

CONNECT_SECONDS = 4
READ_SECONDS = 30


def download_dir() -> Path:
    """Where OpenAI's own package keeps its files, and so do we."""
    return Path(os.path.expanduser("~/.cache/clip"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and log lines of the libraries underneath off the console."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def expected_sha256(url: str) -> str:
    """The digest, or its beginning, that a published URL carries; empty if it carries none."""
    if "openaipublic" in url:
        return url.split("/")[-2]
    if "mlfoundations" in url:
        return Path(url).stem.split("-")[-1]
    return ""


def is_official(path: Path, url: str) -> bool:
    """Whether a file is, by its digest, the one that was published under the URL."""
    wanted = expected_sha256(url)
    return bool(wanted) and sha256_of(path).startswith(wanted)


def find_weights(name: str, published: dict) -> Path:
    """The file of published weights, fetched if it is not there.

    Args:
        name: how the user named the weights, for the message.
        published: ``url`` (a direct link) and ``hf_hub`` (``org/model/file``); either may be empty.

    Raises:
        CLIPError: not there, and not to be had.
    """
    url, hub = published.get("url", ""), published.get("hf_hub", "")
    return _first_found(
        name, url, hub, download_dir(), (_local_url, _local_hub, _fetch_hub, download)
    )


def find_url(name: str, url: str, folder: Path) -> Path:
    """The file of a direct link, from the folder or else fetched into it.

    Raises:
        CLIPError: not there, and not to be had.
    """
    return _first_found(name, url, "", folder, (_local_url, download))


def _first_found(name: str, url: str, hub: str, folder: Path, ways: tuple) -> Path:
    problems = []
    for find in ways:
        direct = find in (_local_url, download)
        if not (url if direct else hub):
            continue
        try:
            found = find(url, folder) if direct else find(hub)
        except OSError as error:
            problems.append(str(error).split("\n")[0])
            continue
        if found is not None:
            return found
    raise CLIPError(_not_found(name, url, hub, folder, problems))


def download(url: str, folder: Path) -> Path:
    """Fetch a URL into a folder, all of it or nothing, and check its digest.

    Raises:
        OSError: the server cannot be reached, or what came is not what was published.
    """
    _require_reachable(url)
    target = folder / Path(urlparse(url).path).name
    with atomic_path(target) as temporary:
        with open(temporary, "wb") as output:
            _copy_url(url, output, target.name)
        digest = sha256_of(temporary)
        if not digest.startswith(expected_sha256(url)):
            raise OSError(f"{url} gave a file with sha256 {digest[:12]}..., which is not its own")
    return target


def _copy_url(url: str, output, title: str) -> None:
    with urllib.request.urlopen(url, timeout=READ_SECONDS) as source:
        total = int(source.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, unit="B", unit_scale=True, desc=title, disable=None) as bar:
            while chunk := source.read(1 << 20):
                output.write(chunk)
                bar.update(len(chunk))


def _local_url(url: str, folder: Path) -> Path | None:
    path = folder / Path(urlparse(url).path).name
    if not path.is_file():
        return None
    digest = sha256_of(path)
    if digest.startswith(expected_sha256(url)):
        return path
    raise OSError(
        f"{path} is there, but its sha256 begins with {digest[:12]} and the published one with "
        f"{expected_sha256(url)[:12]}: it is damaged or another file"
    )


def _hub_names(hub: str) -> tuple[str, list[str]]:
    """Repository and file names to try, of open_clip's ``org/model/file`` form."""
    repository, _, filename = hub.rpartition("/")
    filename = filename or "open_clip_pytorch_model.bin"
    if filename == "open_clip_pytorch_model.bin":
        return repository, ["open_clip_model.safetensors", filename]
    stem, suffix = os.path.splitext(filename)
    return repository, [f"{stem}.safetensors", filename] if suffix != ".safetensors" else [filename]


def _local_hub(hub: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    repository, filenames = _hub_names(hub)
    for filename in filenames:
        found = try_to_load_from_cache(repository, filename)
        if isinstance(found, str):
            return Path(found)
    return None


def _fetch_hub(hub: str) -> Path | None:
    import huggingface_hub as hf

    if hf.constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    _require_reachable(hf.constants.ENDPOINT)
    repository, filenames = _hub_names(hub)
    problem = None
    for filename in filenames:
        try:
            with quiet():
                return Path(hf.hf_hub_download(repository, filename, etag_timeout=READ_SECONDS))
        except (hf.errors.HfHubHTTPError, hf.errors.LocalEntryNotFoundError, OSError) as error:
            problem = error
    raise OSError(f"{hub}: {str(problem).strip()}")


def _require_reachable(url: str) -> None:
    """Refuse in seconds, not minutes, where there is no network; a proxy is left to answer itself.

    Raises:
        OSError: no connection.
    """
    host = urlparse(url).hostname or ""
    if urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    connected = threading.Event()

    def connect():
        with contextlib.suppress(OSError):
            address = (host, urlparse(url).port or (443 if url.startswith("https") else 80))
            socket.create_connection(address, CONNECT_SECONDS).close()
            connected.set()

    # Name resolution has no timeout of its own, so it runs where it can be left behind.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS + 1)
    if not connected.is_set():
        raise OSError(f"no connection to {host}")


def _not_found(name: str, url: str, hub: str, folder: Path, problems: list[str]) -> str:
    places = []
    if url:
        places.append(f"{url}, to be put at {folder / Path(urlparse(url).path).name}")
    if hub:
        repository, filenames = _hub_names(hub)
        places.append(
            f"Hugging Face {repository} ({filenames[0]}), to be put into the hub's cache by "
            f"`hf download {repository} {filenames[0]}`, or anywhere and named by its path"
        )
    what = "; ".join(dict.fromkeys(problems)) or "no place to fetch them from is known"
    return f"weights of {name} are not on this machine and cannot be fetched ({what}). " + (
        f"They are published as {' and as '.join(places)}" if places else ""
    )
