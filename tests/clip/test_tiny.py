"""The embedded backbone: its data, its pre-training, its cache."""

import multiprocessing

import pytest
import torch
import torch.nn.functional as F

import clip
from clip.simple_tokenizer import shared_tokenizer
from clip.tiny import Recipe, cache, captions, digits, pretrain, tiny_file, tiny_weights

QUICK = Recipe(steps=2, images=16, captions=8)


def put_weights(queue):
    queue.put(float(tiny_weights(QUICK)["text_projection"].sum()))


@pytest.fixture
def cached(monkeypatch, tmp_path):
    """An empty cache; gives the file that the quick recipe will be kept in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache.cache_path(QUICK)


def equal(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_images_are_reproducible_and_normalised():
    images, attributes = digits.DigitImages(3).sample(32)
    again, _ = digits.DigitImages(3).sample(32)
    assert torch.equal(images, again)
    assert images.shape == (32, 3, 32, 32)
    assert torch.equal(images[:, 0], images[:, 2])
    gray = images * digits.STD + digits.MEAN
    assert gray.min() > -1e-5 and gray.max() < 1 + 1e-5 and gray.std() > 0.1
    assert all(len(values) == 32 for values in attributes.values())
    assert not torch.equal(images, digits.DigitImages(4).sample(32)[0])


def test_strokes():
    image = torch.zeros(3, 1, 9, 9)
    image[:, :, 3:6, 3:6] = 1
    thin, same, thick = digits.change_strokes(image, torch.tensor([0, 1, 2])).sum((1, 2, 3))
    assert (thin, same, thick) == (5, 9, 25)


def test_captions_are_true():
    """Every caption is true of some image, and what it says of the digit is."""
    _, attributes = digits.DigitImages(0).sample(64)
    texts, true = captions.Captions(0).sample(attributes, 200)
    assert true.shape == (64, 200) and true.any(0).all()
    assert captions.Captions(0).sample(attributes, 200)[0] == texts
    for place, text in enumerate(texts):
        if "the digit seven" in text:
            assert set(attributes["digit"][true[:, place]].tolist()) == {7}
        if "italic" in text:
            assert (attributes["slant"][true[:, place]] == 1).all()


def test_tables_are_whole():
    for subject in captions.SUBJECTS:
        assert set(subject.of_digit) == set(range(len(subject.phrases)))
    assert sum(subject.share for subject in captions.SUBJECTS) == pytest.approx(1)


def test_vocabulary_covers_captions():
    encode = shared_tokenizer().encode
    known = {token for text in captions.vocabulary() for token in encode(text)}
    source, writer = digits.DigitImages(1), captions.Captions(1)
    for _ in range(20):
        texts, _ = writer.sample(source.sample(64)[1], 100)
        assert {token for text in texts for token in encode(text)} <= known


def test_unicl_loss():
    """Equal to the sum written out, and to plain cross-entropy where pairs are one to one."""
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    true = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0]]).bool()
    rows = [-logits[i].log_softmax(0)[true[i]].mean() for i in (0, 1, 3)]
    columns = [-logits[:, j].log_softmax(0)[true[:, j]].mean() for j in range(3)]
    expected = (sum(rows) / 3 + sum(columns) / 3) / 2
    assert torch.allclose(pretrain.unicl_loss(logits, true), expected)
    square, target = logits[:3], torch.arange(3)
    expected = (F.cross_entropy(square, target) + F.cross_entropy(square.T, target)) / 2
    assert torch.allclose(pretrain.unicl_loss(square, torch.eye(3).bool()), expected)


def test_schedule():
    recipe = Recipe(steps=100, warmup=10, lr=1.0)
    assert pretrain.lr_at(0, recipe) == pytest.approx(0.1)
    assert pretrain.lr_at(50, recipe) == pytest.approx(0.5)
    assert pretrain.lr_at(99, recipe) < 1e-3


def test_same_recipe_same_bits():
    assert equal(pretrain.pretrain(QUICK), pretrain.pretrain(QUICK))


def test_pretraining_disturbs_nothing():
    threads = torch.get_num_threads()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with torch.no_grad():
        state = pretrain.pretrain(QUICK)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.rand(3), expected) and torch.get_num_threads() == threads
    assert not any(tensor.requires_grad for tensor in state.values())


def test_pretraining_changes_only_words_of_captions():
    one = pretrain.pretrain(Recipe(steps=1, images=16, captions=8))["token_embedding.weight"]
    two = pretrain.pretrain(QUICK)["token_embedding.weight"]
    changed = (one != two).any(1).nonzero()[:, 0].tolist()
    encode = shared_tokenizer().encode
    known = {token for text in captions.vocabulary() for token in encode(text)}
    assert changed and set(changed) <= known | {49406, 49407}


def test_cache(cached, capsys):
    first = tiny_weights(QUICK)
    assert "pre-training the tiny CLIP" in capsys.readouterr().err
    stamp = cached.stat().st_mtime_ns
    assert equal(tiny_weights(QUICK), first)
    assert cached.stat().st_mtime_ns == stamp and capsys.readouterr().err == ""
    assert sorted(p.suffix for p in cached.parent.iterdir()) in (
        [".lock", ".safetensors"],
        [".safetensors"],
    )


@pytest.mark.parametrize("damage", ["empty", "truncated", "one bit"])
def test_damaged_cache_is_made_again(cached, damage):
    first = tiny_weights(QUICK)
    whole = cached.read_bytes()
    flipped = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
    cached.write_bytes({"empty": b"", "truncated": whole[:5000], "one bit": flipped}[damage])
    assert equal(tiny_weights(QUICK), first)
    assert cached.read_bytes() == whole


def test_recipes_are_kept_apart(cached, monkeypatch):
    assert cache.cache_path(Recipe()) != cached
    other = cache.cache_path(Recipe(steps=2, images=16, captions=8, seed=1))
    assert other != cached and other.parent == cached.parent
    monkeypatch.setattr("importlib.metadata.version", lambda package: "another")
    assert cache.cache_path(QUICK) != cached


def test_two_processes_at_once(cached, capfd):
    """One pre-trains, the other waits and reads."""
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=put_weights, args=(queue,)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = queue.get(timeout=120), queue.get(timeout=120)
    for process in processes:
        process.join()
    assert first == second
    assert capfd.readouterr().err.count("pre-training the tiny CLIP on") == 1
    assert [p for p in cached.parent.iterdir() if p.suffix == ".safetensors"] == [cached]


def test_waiting_is_said(cached, capsys, monkeypatch):
    from filelock import FileLock, Timeout

    class Busy(FileLock):
        def acquire(self, timeout=None, **kwargs):
            if timeout == 0:
                raise Timeout("busy")
            return super().acquire(timeout=timeout, **kwargs)

    monkeypatch.setattr(cache, "FileLock", Busy)
    tiny_weights(QUICK)
    assert "another process is pre-training the tiny CLIP; waiting" in capsys.readouterr().err


def test_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        clip.CLIPError, match=r"cannot write the tiny CLIP to .*; set XDG_CACHE_HOME"
    ):
        tiny_weights(QUICK)


def test_file_in_openais_form(cached):
    state = torch.load(tiny_file(QUICK), weights_only=True)
    assert state.pop("input_resolution") == 32
    assert state.pop("context_length") == 77 and state.pop("vocab_size") == 49408
    assert equal(state, tiny_weights(QUICK))


@pytest.mark.slow
def test_recognises_written_digits():
    """Zero-shot on real digits, far above chance, with the default recipe."""
    sklearn = pytest.importorskip("sklearn.datasets")
    found = sklearn.load_digits()
    images = torch.tensor(found.images / 16, dtype=torch.float32)[:, None]
    images = F.interpolate(images, size=32, mode="bilinear", align_corners=False)
    model = clip.load_backbone("tiny")
    image = F.normalize(model.encode_image((images.expand(-1, 3, -1, -1) - 0.3) / 0.35), dim=-1)
    prompts = [f"a photo of the digit {word}." for word in captions.DIGITS]
    text = F.normalize(model.text_tower.encode_text(prompts), dim=-1)
    right = (image @ text.T).argmax(1) == torch.tensor(found.target)
    assert right.float().mean() > 0.5
