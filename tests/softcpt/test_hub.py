"""The Hugging Face hub: export.py --push-to, and loading by name; a stand-in answers."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

import export
import predict
import softcpt
from softcpt.run_folder import PARAMETERS

PROGRAM = export


@pytest.fixture
def hub(monkeypatch):
    """The calls that a stand-in of the hub's API received."""
    calls = []

    class Api:
        def __init__(self, endpoint):
            self.endpoint = endpoint

        def whoami(self):
            return {"name": "owner"}

        def create_repo(self, name, **how):
            calls.append((name, how))
            return SimpleNamespace(repo_id=name)

        def upload_folder(self, repo_id, folder_path, commit_message):
            calls.append((repo_id, {path.name for path in folder_path.iterdir()}))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_token")
    return calls


def test_nothing_is_pushed_unless_asked(command, runs, hub, tmp_path):
    assert command(runs("CoOp"), tmp_path / "out", "--as", "prompts")[0] == 0
    assert hub == []


def test_push(command, runs, hub, tmp_path):
    words = ("--as", "prompts", "--push-to", "owner/prompts")
    code, out, err = command(runs("CoOp"), tmp_path / "out", *words)
    assert code == 0, err
    assert hub[0] == ("owner/prompts", {"private": True, "exist_ok": True})
    assert PARAMETERS in hub[1][1] and "README.md" in hub[1][1] and "owner/prompts" in out
    assert command(runs("CoOp"), tmp_path / "public", *words, "--public")[0] == 0
    assert hub[2][1]["private"] is False


def test_a_failed_upload_says_where_the_export_is(command, runs, hub, tmp_path, monkeypatch):
    def upload_folder(self, **how):
        raise OSError("the line is down")

    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    folder = tmp_path / "out"
    words = ("--as", "prompts", "--push-to", "owner/prompts")
    code, _, err = command(runs("CoOp"), folder, *words)
    assert code == 2 and "the line is down" in err and err.count("\n") == 1
    assert f"hf upload owner/prompts {folder} --private" in err
    assert (folder / PARAMETERS).is_file()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--as", "onnx", "--push-to", "a/b"), "--as prompts"),
        (("--as", "prompts", "--public"), "--push-to"),
        (("--as", "prompts", "--push-to", "a//b c"), "'a//b c'"),
    ],
)
def test_mistakes(words, part, command, runs, hub, tmp_path):
    code, out, err = command(runs("CoOp"), tmp_path / "out", *words)
    assert code == 2 and out == "" and part in err and not list(tmp_path.iterdir()) and not hub


def test_without_a_token(command, runs, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    words = ("--as", "prompts", "--push-to", "owner/prompts")
    code, _, err = command(runs("CoOp"), tmp_path / "out", *words)
    assert code == 2 and "HF_TOKEN" in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


class Refusing(BaseHTTPRequestHandler):
    """A hub that knows no token."""

    def do_GET(self):
        self.send_response(401)
        self.end_headers()

    def log_message(self, *args):
        """Print nothing."""


@pytest.fixture
def refusing(monkeypatch):
    """The address of a server that accepts no token."""
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_wrong")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    yield address
    server.shutdown()
    server.server_close()


def test_no_connection(command, runs, tmp_path, monkeypatch):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))  # bound, but not listening
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_some")
        words = ("--as", "prompts", "--push-to", "owner/prompts")
        code, _, err = command(runs("CoOp"), tmp_path / "out", *words)
    assert code == 2 and "no connection" in err and err.count("\n") == 1


def test_in_a_process_of_its_own():
    """Names of the hub's package that only another import defines are not relied on."""
    code = "from softcpt.hub import check_push; check_push('owner/prompts')"
    hidden = {"HF_TOKEN": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | hidden, capture_output=True, text=True
    )
    assert "UserError" in done.stderr and "HF_HUB_OFFLINE" in done.stderr


def test_a_token_that_the_hub_refuses(command, runs, refusing, tmp_path):
    words = ("--as", "prompts", "--push-to", "owner/prompts")
    code, _, err = command(runs("CoOp"), tmp_path / "out", *words)
    assert code == 2 and "401" in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_loading_by_name(runs, loaded, held_out, tmp_path, monkeypatch, capsys):
    """A repository of the hub's cache is loaded as the folder that was pushed."""
    softcpt.export_run(loaded("CoOp"), tmp_path / "pushed", "prompts")

    def snapshot(repository, allow_patterns, local_files_only):
        assert (repository, local_files_only) == ("owner/prompts", True)
        folder = tmp_path / "cache"
        shutil.copytree(tmp_path / "pushed", folder, dirs_exist_ok=True)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    path = held_out(0)[0][0]
    again = softcpt.load_run("hf-hub:owner/prompts")
    assert torch.equal(again.logits(path), loaded("CoOp").logits(path))
    assert predict.command(["hf-hub:owner/prompts", path, "--task", "0"]) == 0
    assert path in capsys.readouterr().out
