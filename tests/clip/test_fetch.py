"""Weights that are not there: where they are looked for, fetched from, and what is said."""

import hashlib
import http.server
import logging
import threading
import warnings

import huggingface_hub
import pytest

import clip
from clip import CLIPError, _fetch

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server():
    """A server on this machine that has the content under every path; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(404 if "missing" in self.path else 200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:300] if "cut" in self.path else CONTENT)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def test_offline_says_what_from_where_and_where_to(offline):
    with pytest.raises(CLIPError) as caught:
        clip.load_backbone("RN50")
    message = str(caught.value)
    assert "weights of RN50 are not on this machine and cannot be downloaded" in message
    assert "openaipublic.azureedge.net/clip/models/afeb0e10f9e5a86da6080e35cf09123aca" in message
    assert f"to be saved as {offline}/.cache/clip/RN50.pt" in message
    assert "timm/resnet50_clip.openai (open_clip_model.safetensors)" in message
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    with pytest.raises(CLIPError, match=r"Hugging Face laion/CLIP-ViT-B-32-laion2B-s34B-b79K"):
        clip.load_backbone("ViT-B-32/laion2b_s34b_b79k")


def test_every_connection_has_a_timeout(offline, monkeypatch):
    timeouts = []

    def hang(address, timeout=None, *args, **kwargs):
        timeouts.append(timeout)
        raise TimeoutError("timed out")

    monkeypatch.setattr("socket.create_connection", hang)
    with pytest.raises(CLIPError, match="no connection to huggingface"):
        clip.load_backbone("ViT-B/32")
    assert timeouts == [_fetch.CONNECT_TIMEOUT, _fetch.TIMEOUT]


def test_hub_is_told_to_be_offline(offline, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CLIPError, match="HF_HUB_OFFLINE is set"):
        clip.load_backbone("ViT-B/32")


def test_damaged_official_file(offline):
    folder = offline / ".cache" / "clip"
    folder.mkdir(parents=True)
    (folder / "RN50.pt").write_bytes(CONTENT)
    message = rf"RN50.pt is damaged or another file: .* {DIGEST[:12]}, .* afeb0e10f9e5"
    with pytest.raises(CLIPError, match=message):
        clip.load_backbone("RN50")


def test_official_file(tmp_path, monkeypatch):
    url = f"https://openaipublic.example/{DIGEST}/RN50.pt"
    (tmp_path / "RN50.pt").write_bytes(CONTENT)
    assert clip.clip._download(url, str(tmp_path)) == str(tmp_path / "RN50.pt")


def test_download(server, tmp_path):
    url = f"{server}/openaipublic/{DIGEST}/RN50.pt"
    path = clip.clip._download(url, str(tmp_path / "new"))
    assert path == str(tmp_path / "new" / "RN50.pt")
    assert [p.read_bytes() for p in (tmp_path / "new").iterdir()] == [CONTENT]


def test_download_that_is_not_what_was_published(server, tmp_path):
    with pytest.raises(CLIPError, match=rf"another sha256, {DIGEST[:12]}"):
        clip.clip._download(f"{server}/openaipublic/{'0' * 64}/RN50.pt", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_download_that_ends_early(server, tmp_path):
    """The address of a file without a published digest, as MetaCLIP's."""
    with pytest.raises(CLIPError, match="300 of 7,000 bytes"):
        _fetch.download(f"{server}/cut/b32_400m.pt", tmp_path)
    assert not list(tmp_path.iterdir())


def test_download_that_is_gone(server, tmp_path):
    with pytest.raises(CLIPError, match="HTTP Error 404"):
        clip.clip._download(f"{server}/missing/w.pt", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_digest_in_the_name_of_open_clips_releases():
    url = "https://github.com/mlfoundations/open_clip/releases/vit_b_32-laion400m_e32-46683a32.pt"
    assert _fetch.expected_sha256(url) == "46683a32"
    assert _fetch.expected_sha256("https://example.org/w.pt") == ""


def test_hub_cache_comes_before_the_network(offline, monkeypatch):
    asked = []

    def cached(repository, filename):
        asked.append((repository, filename))
        return str(offline / "w") if filename.endswith(".bin") else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert _fetch.find_weights("x", {"hf_hub": "org/model/"}) == offline / "w"
    assert asked == [
        ("org/model", "open_clip_model.safetensors"),
        ("org/model", "open_clip_pytorch_model.bin"),
    ]


def test_hub_download(offline, monkeypatch, server):
    monkeypatch.undo()
    monkeypatch.setattr(_fetch, "_require_answer", lambda url: None)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda r, f, **k: f"/hub/{r}/{f}")
    found = _fetch.find_weights("x", {"hf_hub": "org/model/w.pt"})
    assert str(found) == "/hub/org/model/w.safetensors"

    def gone(*args, **kwargs):
        raise FileNotFoundError("no such file\nmore words")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", gone)
    with pytest.raises(CLIPError, match=r"downloaded \(org/model/w.pt: no such file\)"):
        _fetch.find_weights("x", {"hf_hub": "org/model/w.pt"})


def test_nowhere_published():
    with pytest.raises(CLIPError, match=r"cannot be downloaded \(no source is known"):
        _fetch.find_weights("x", {})


def test_quiet(capsys, recwarn):
    with _fetch.quiet():
        logging.error("noise")
        warnings.warn("noise", stacklevel=1)
    assert capsys.readouterr().err == "" and not recwarn.list
    assert logging.root.manager.disable == 0
