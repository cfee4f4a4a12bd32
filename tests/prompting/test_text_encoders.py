"""The text encoders that methods are given share one interface."""

import pytest
import torch

from clip import TextEncoder, load_backbone
from clip.text import Prompts
from prompting.encoder_wrapper import EncoderWrapper
from prompting.sharding import ShardedEncoder
from prompting.text_chunks import RowCounter

WRAPPERS = [EncoderWrapper, ShardedEncoder, RowCounter]


@pytest.fixture
def tower():
    return load_backbone("tiny/random").text_tower


def test_a_tower_is_a_text_encoder(tower):
    assert isinstance(tower, TextEncoder)
    assert not isinstance(torch.nn.Linear(2, 2), TextEncoder)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_forwards_the_whole_interface(tower, wrapper):
    encoder = wrapper(tower)
    assert isinstance(encoder, TextEncoder)
    for name in ("context_length", "width", "out_dim", "device", "tokenizer"):
        assert getattr(encoder, name) == getattr(tower, name)
    tokens = encoder.tokenize(["a cat."])  # (1, L)
    assert torch.equal(tokens, tower.tokenize(["a cat."]))
    embedded = encoder.embed(tokens)  # (1, L, d)
    prompts = Prompts(embedded[:, :1], embedded[:, 1:], torch.zeros(1).long(), tokens.argmax(1) - 1)
    expected = encoder.encode_text(["a cat."])
    torch.testing.assert_close(encoder.encode(prompts), expected)


def test_a_wrapper_that_lacks_a_member_cannot_be_built():
    class Forgetful(TextEncoder):
        def encode(self, prompts):
            return prompts.suffix

    with pytest.raises(TypeError, match="abstract"):
        Forgetful()
