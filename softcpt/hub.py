"""The Hugging Face hub: exported prompts are pushed to it, and loaded from it by name."""

from __future__ import annotations

import os
from pathlib import Path

from dassl.utils import UserError
from results.schema import FILE as RECORD
from results.tasks_file import FILE as TASKS

from .run_folder import CONFIG, PARAMETERS

PREFIX = "hf-hub:"  # of names, as for backbones


def local_folder(name: str) -> Path:
    """The folder of a run: the given one, or that of ``hf-hub:owner/name`` in the hub's cache.

    Only the files of an export of prompts are downloaded; none of them holds code.

    Raises:
        UserError: no valid name, or the repository is not on this machine and cannot be
            downloaded.
    """
    if not name.startswith(PREFIX):
        return Path(os.path.expanduser(name))
    from clip._fetch import find_hub_folder

    repository = name.removeprefix(PREFIX)
    _check_name(repository, f"{PREFIX} is followed by a name")
    files = [PARAMETERS, CONFIG, TASKS, RECORD]
    return find_hub_folder(repository, [PARAMETERS], files, "the exported run")


def _check_name(name: str, what: str) -> None:
    """Refuse what is no name of a repository.

    Args:
        what: what takes the name, for the message.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise UserError(f"{what} such as owner/my-prompts; got {name!r}") from None


def check_push(name: str) -> None:
    """Check, before an export, that it could be pushed; nothing is created.

    Raises:
        UserError: no valid name, no token, or one that the hub does not accept.
    """
    _check_name(name, "--push-to takes a name")
    _ask(name, lambda api: api.whoami())


def push(folder: Path, name: str, public: bool = False) -> str:
    """Upload a folder to the repository ``name``, made if there is none; its address.

    Args:
        public: a new repository is visible to everybody; otherwise it is private.

    Raises:
        UserError: no token, no permission, or no connection.
    """

    def upload(api) -> str:
        made = api.create_repo(name, private=not public, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Upload prompts")
        return str(made)

    return _ask(name, upload)


def _ask(name: str, question):
    """What ``question(api)`` returns; the hub's errors as one line."""
    import huggingface_hub as hf
    from huggingface_hub import constants  # no attribute of hf until something imports it

    if constants.HF_HUB_OFFLINE:
        raise UserError(f"cannot push to {name}: HF_HUB_OFFLINE is set")
    if not hf.get_token():
        raise UserError(
            f"cannot push to {name}: no token of the Hugging Face hub is known; run "
            "`hf auth login`, or set HF_TOKEN to one that may write"
        )
    try:
        return question(hf.HfApi(endpoint=constants.ENDPOINT))
    except Exception as error:  # the hub's library has used requests, httpx and httpx2
        status = getattr(getattr(error, "response", None), "status_code", None)
        connecting = type(error).__module__.startswith(("http", "requests"))
        if status in (401, 403):
            why = f"the hub does not accept the token ({status}); it must be one that may write"
        elif status:
            why = f"the hub answers {status}: {str(error).strip().splitlines()[0]}"
        elif isinstance(error, OSError) or connecting:
            why = f"no connection to the hub ({error})"
        else:
            raise
        raise UserError(f"cannot push to {name}: {why}") from None
