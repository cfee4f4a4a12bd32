"""Tokens of every kind of tokenizer: equal to open_clip's own call, whatever the text."""

import open_clip.tokenizer
import pytest
import torch

from clip import CLIPError
from clip._tokenizers import HubTokenizer, tokenize
from clip.simple_tokenizer import SimpleTokenizer
from tests.clip._tokenizers import ODD_TEXTS, WordTokenizer, save_hub_tokenizer

KINDS = {  # kind of tokenizer -> options of open_clip, prefix ids, suffix ids, padding id
    "t5": ({"clean": "canonicalize"}, (), (1,), 1),
    "mt5": ({}, (), (1,), 0),
    "gemma": ({"clean": "canonicalize"}, (), (1,), 0),
    "bert": ({"strip_sep_token": True}, (2,), (0,), 0),
    "roberta": ({}, (0,), (2,), 1),
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The tokenizer of a kind here, and open_clip's."""
    pytest.importorskip("transformers")

    def make(kind, **more):
        folder = tmp_path_factory.mktemp(kind)
        save_hub_tokenizer(folder, kind)
        options = {**KINDS[kind][0], **more}
        source = open_clip.tokenizer.HFTokenizer(str(folder), context_length=40, **options)
        return HubTokenizer(source), source

    return make


@pytest.mark.parametrize("clean", ["lower", "canonicalize", "whitespace"])
def test_clips_own(clean):
    ours = SimpleTokenizer(clean=clean)
    theirs = open_clip.tokenizer.SimpleTokenizer(clean=clean)
    found = tokenize(ODD_TEXTS, 77, ours, truncate=True)
    assert torch.equal(found, theirs(ODD_TEXTS, 77))


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_of_the_hub(hub, kind):
    ours, theirs = hub(kind)
    assert (ours.prefix_ids, ours.suffix_ids, ours.pad_id) == KINDS[kind][1:]
    assert torch.equal(tokenize(ODD_TEXTS, 40, ours, truncate=True), theirs(ODD_TEXTS))
    ids = ours.encode("the cat")
    assert ours.decode(ids).strip() == "the cat"


@pytest.mark.parametrize("kind", KINDS)
def test_words_after_words(hub, kind):
    """A name behind a context has the tokens that it has in a sentence."""
    ours, _ = hub(kind)
    for name in ("cat", "black cat", "xyz", "St. John's wort"):
        assert ours.encode("a photo of a") + ours.encode_after(name) == ours.encode(
            f"a photo of a {name}"
        )


def test_texts_that_are_too_long():
    words = WordTokenizer((7, 8), (2, 3), 4, size=20)
    assert tokenize(["a b c"], 8, words)[0].tolist()[-3:] == [2, 3, 4]
    assert tokenize(["a b c d e"], 8, words, truncate=True)[0].tolist()[-2:] == [2, 3]
    with pytest.raises(CLIPError, match="9 tokens does not fit the context of 8: 'a b c d e'"):
        tokenize(["a b c d e"], 8, words)


def test_padding_on_the_left_is_refused(hub):
    _, source = hub("gemma")
    source.tokenizer.padding_side = "left"
    with pytest.raises(CLIPError, match="left"):
        HubTokenizer(source)
