"""Weight files: found on this machine or downloaded from where they are published."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlparse

from tqdm import tqdm

from dassl.utils.files import atomic_path
from dassl.utils.hashes import hash_file

from ._errors import CLIPError

CONNECT_TIMEOUT = 4  # seconds
TIMEOUT = 30


def download_dir() -> Path:
    """The folder in which OpenAI's own package stores its weights."""
    return Path(os.path.expanduser("~/.cache/clip"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and log lines of the libraries."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def expected_sha256(url: str) -> str:
    """The digest in a published URL, or its first characters; empty if there is none."""
    if "openaipublic" in url:
        return url.split("/")[-2]
    if "mlfoundations" in url:
        return Path(url).stem.split("-")[-1]
    return ""


def is_official(path: Path, url: str) -> bool:
    """Whether a file has the digest of the published URL."""
    wanted = expected_sha256(url)
    return bool(wanted) and hash_file(path).startswith(wanted)


def find_weights(name: str, published: dict) -> Path:
    """The file of published weights: local, in the hub's cache, or downloaded.

    Args:
        name: the user's name of the weights, for the message.
        published: ``url`` (a direct link) and ``hf_hub`` (``org/model/file``); either may be empty.

    Raises:
        CLIPError: it is not on this machine and cannot be downloaded.
    """
    url, hub = published.get("url", ""), published.get("hf_hub", "")
    folder = download_dir()
    sources = []
    if url:
        sources.append(lambda: _local_url(url, folder))
    if hub:
        sources += [lambda: _local_hub(hub), lambda: _download_hub(hub)]
    if url:
        sources.append(lambda: download(url, folder))
    return _first_found(sources, lambda problems: _not_found(name, url, hub, folder, problems))


def find_url(name: str, url: str, folder: Path) -> Path:
    """The file of a direct link, in the folder or downloaded into it.

    Raises:
        CLIPError: it is not there and cannot be downloaded.
    """
    sources = [lambda: _local_url(url, folder), lambda: download(url, folder)]
    return _first_found(sources, lambda problems: _not_found(name, url, "", folder, problems))


def _first_found(sources: list[Callable], message: Callable) -> Path:
    problems = []
    for find in sources:
        try:
            if found := find():
                return found
        except (OSError, CLIPError) as error:
            problems.append(str(error).split("\n")[0])
    raise CLIPError(message(problems))


def download(url: str, folder: Path) -> Path:
    """Download a URL into a folder, atomically, and check its digest.

    Raises:
        CLIPError: the server cannot be reached, or the file is not the published one.
        OSError: the file cannot be written.
    """
    target = folder / Path(urlparse(url).path).name
    with atomic_path(target) as temporary:
        with open(temporary, "wb") as output:
            try:
                _copy_url(url, output, target.name)
            except (urllib.error.URLError, TimeoutError, http.client.HTTPException) as error:
                raise CLIPError(f"{url}: {error}") from None
        digest = hash_file(temporary)
        if not digest.startswith(expected_sha256(url)):
            raise CLIPError(f"{url} gave a file with another sha256, {digest[:12]}...")
    return target


def _copy_url(url: str, output, title: str) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT) as source:
        total = int(source.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, unit="B", unit_scale=True, desc=title, disable=None) as bar:
            while chunk := source.read(1 << 20):
                output.write(chunk)
                bar.update(len(chunk))
        if total and output.tell() < total:  # of a file without a digest nothing else would tell
            raise CLIPError(
                f"{url}: the connection ended after {output.tell():,} of {total:,} bytes"
            )


def _local_url(url: str, folder: Path) -> Path | None:
    path = folder / Path(urlparse(url).path).name
    if not path.is_file():
        return None
    digest = hash_file(path)
    if digest.startswith(expected_sha256(url)):
        return path
    raise OSError(
        f"{path} is damaged or another file: its sha256 begins with {digest[:12]}, the published "
        f"one with {expected_sha256(url)[:12]}"
    )


def _hub_names(hub: str) -> tuple[str, list[str]]:
    """Repository and candidate file names of open_clip's ``org/model/file`` form."""
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


def _download_hub(hub: str) -> Path | None:
    import huggingface_hub as hf
    from huggingface_hub.utils import HfHubHTTPError

    require_hub()
    repository, filenames = _hub_names(hub)
    problem = None
    for filename in filenames:
        try:
            with quiet():
                return Path(hf.hf_hub_download(repository, filename, etag_timeout=TIMEOUT))
        except (HfHubHTTPError, OSError) as error:
            problem = error
    raise OSError(f"{hub}: {str(problem).strip()}")


def has_any(folder: Path, names: Sequence[str]) -> bool:
    """Whether a folder has a file of one of these names."""
    return any((folder / name).is_file() for name in names)


def find_hub_folder(
    repository: str, wanted: Sequence[str], patterns: Sequence[str], what: str
) -> Path:
    """The folder of a repository's files in the hub's cache, downloaded if they are not there.

    Args:
        wanted: file names; one of them must be in the folder.
        patterns: the files to download.
        what: the files in words, for the message.

    Raises:
        CLIPError: they are not on this machine and cannot be downloaded.
    """
    import huggingface_hub as hf
    from huggingface_hub.utils import HfHubHTTPError, HFValidationError

    problem = ""
    for local in (True, False):
        try:
            if not local:
                require_hub()
            with quiet():
                folder = hf.snapshot_download(
                    repository, allow_patterns=list(patterns), local_files_only=local
                )
            if has_any(Path(folder), wanted):
                return Path(folder)
            problem = f"{repository} has no {' or '.join(wanted)}"
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            problem = str(error).strip().split("\n")[0]
    raise CLIPError(
        f"{what} of {repository} is not on this machine and cannot be downloaded ({problem}). "
        f"On a machine with a network run `hf download {repository} {' '.join(patterns)}` and copy "
        f"{hub_cache(repository)} to this one"
    )


def hub_cache(repository: str) -> Path:
    """The folder of a repository in the hub's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"


def require_hub() -> None:
    """Fail at once if the hub may not be asked, and within seconds if it does not answer."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    _require_answer(constants.ENDPOINT)


def _require_answer(url: str) -> None:
    """Fail within seconds if a server does not answer; the hub's library retries for minutes.

    Raises:
        OSError: no connection.
    """
    try:
        request = urllib.request.Request(url, method="HEAD")
        urllib.request.urlopen(request, timeout=CONNECT_TIMEOUT).close()
    except urllib.error.HTTPError:
        pass  # an answer
    except OSError:
        raise OSError(f"no connection to {urlparse(url).hostname}") from None


def _not_found(name: str, url: str, hub: str, folder: Path, problems: list[str]) -> str:
    places = []
    if url:
        places.append(f"{url}, to be saved as {folder / Path(urlparse(url).path).name}")
    if hub:
        repository, filenames = _hub_names(hub)
        places.append(
            f"Hugging Face {repository} ({filenames[0]}), to be fetched with "
            f"`hf download {repository} {filenames[0]}`, or saved anywhere and named by its path"
        )
    what = "; ".join(dict.fromkeys(problems)) or "no source is known"
    return f"weights of {name} are not on this machine and cannot be downloaded ({what}). " + (
        f"They are published as {' and as '.join(places)}" if places else ""
    )
