"""Pre-training of the tiny CLIP: contrastive, with several true captions per image.

UniCL: https://arxiv.org/abs/2204.03610 (eq. 2 and 3).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from .. import _archs
from .._blocks import causal_mask, run_blocks
from ..simple_tokenizer import shared_tokenizer, tokenize
from .captions import Captions, vocabulary
from .digits import DigitImages
from .recipe import Recipe

LOTS = 4


def pretrain(recipe: Recipe) -> dict[str, torch.Tensor]:
    """Weights of the tiny CLIP; the same recipe gives the same bits on the same machine.

    A second thread computes the text tower and draws the next batch while this one computes the
    image tower. The towers share no weights, so that changes no bit. Leaves the caller's random
    state, number of threads and gradient mode as they are.
    """
    beside = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(recipe.threads,))
    with _own_world(recipe), beside:
        model = _archs.build(_archs.arch_config(recipe.arch))
        model.to(memory_format=torch.channels_last)  # convolutions are an eighth faster
        words = CaptionWords(model)
        images, captions = DigitImages(recipe.seed), Captions(recipe.seed)
        optimizer = _optimizer(model, words, recipe)
        model.train()

        def draw() -> tuple[torch.Tensor, list[str], torch.Tensor]:
            pixels, attributes = images.sample(recipe.images)
            return pixels, *captions.sample(attributes, recipe.captions)

        def finish_text(
            text: torch.Tensor, gradient: torch.Tensor
        ) -> tuple[torch.Tensor, list[str], torch.Tensor]:
            text.backward(gradient)
            return draw()

        batch = draw()
        for step in tqdm(range(recipe.steps), desc="tiny CLIP", disable=None, leave=False):
            pixels, texts, true = batch
            encoding = beside.submit(words.encode, texts)
            image, text = model.encode_image(pixels), encoding.result()  # (B, e), (n, e)
            ends = [x.detach().requires_grad_() for x in (image, text)]
            x, y = (F.normalize(end, dim=-1) for end in ends)
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, recipe)
            optimizer.zero_grad()
            unicl_loss(model.logit_scale.exp().clamp(max=100) * x @ y.T, true).backward()
            finishing = beside.submit(finish_text, text, ends[1].grad)
            image.backward(ends[0].grad)
            batch = finishing.result()
            nn.utils.clip_grad_norm_([*model.parameters(), *words.parameters()], recipe.max_norm)
            optimizer.step()
        words.write_back()
        return {name: t.detach().contiguous() for name, t in model.state_dict().items()}


class CaptionWords(nn.Module):
    """The text tower over the few words that captions use: a dense update of all 49 408 rows of
    the embedding would cost more than the rest of a step.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        object.__setattr__(self, "model", model)
        tokenizer = shared_tokenizer()
        ids = {0, tokenizer.sot_token_id, tokenizer.eot_token_id}
        ids.update(token for text in vocabulary() for token in tokenizer.encode(text))
        self.ids = torch.tensor(sorted(ids))
        self.place = torch.full((len(model.token_embedding.weight),), -1)  # -1: not in a caption
        self.place[self.ids] = torch.arange(len(self.ids))
        self.weight = nn.Parameter(model.token_embedding.weight.detach()[self.ids].clone())
        model.token_embedding.requires_grad_(False)

    def encode(self, texts: list[str]) -> torch.Tensor:
        """Text features (n, e)."""
        tokens = self.place[tokenize(texts)]  # (n, 77)
        eot = (tokens == self.place[shared_tokenizer().eot_token_id]).int().argmax(-1)
        # Captions of like length together, each lot cut at its longest: exact, and half the work.
        order = eot.argsort(stable=True)
        lots = [self._encode(tokens[lot], eot[lot]) for lot in order.chunk(LOTS)]
        return torch.cat(lots)[order.argsort()]

    def _encode(self, tokens: torch.Tensor, eot: torch.Tensor) -> torch.Tensor:
        model = self.model
        x = self.weight[tokens[:, : int(eot.max()) + 1]]  # (n, L, d)
        x = x + model.positional_embedding[: x.shape[1]]
        x = run_blocks(model.transformer, x, causal_mask(x.shape[1], x.device, x.dtype))
        return model.ln_final(x[torch.arange(len(x)), eot]) @ model.text_projection

    @torch.no_grad()
    def write_back(self) -> None:
        """Put the trained rows into the model's embedding."""
        self.model.token_embedding.weight[self.ids] = self.weight


def unicl_loss(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Softmax cross-entropy of (B, n) both ways, spread evenly over what is true (B, n)."""
    target = true.float()
    described = true.any(1)  # an image may be without a caption, a caption never without an image
    of_image = target / target.sum(1, keepdim=True).clamp_min(1)
    of_text = target / target.sum(0, keepdim=True)
    to_text = -(F.log_softmax(logits, 1) * of_image).sum(1)[described].mean()
    to_image = -(F.log_softmax(logits, 0) * of_text).sum(0).mean()
    return (to_text + to_image) / 2


def lr_at(step: int, recipe: Recipe) -> float:
    """Linear warm-up times a cosine."""
    warm = min(1.0, (step + 1) / recipe.warmup)
    return recipe.lr * warm * (1 + math.cos(math.pi * step / recipe.steps)) / 2


def _optimizer(model: nn.Module, words: CaptionWords, recipe: Recipe) -> torch.optim.Optimizer:
    decayed, kept = [], [words.weight]
    for name, tensor in model.named_parameters():
        if tensor.requires_grad:
            is_matrix = tensor.ndim >= 2 and "embedding" not in name
            (decayed if is_matrix else kept).append(tensor)
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)


@contextlib.contextmanager
def _own_world(recipe: Recipe) -> Iterator[None]:
    """Seed, threads and gradient mode of the recipe, and the caller's again afterwards."""
    threads = torch.get_num_threads()
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        torch.default_generator.manual_seed(recipe.seed)
        torch.set_num_threads(recipe.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
