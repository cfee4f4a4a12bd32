"""Sentences about images, from the classes that zero-shot CLIP ranks highest."""

from __future__ import annotations

from collections import Counter, defaultdict

import torch
from torch import nn

from clip import TextEncoder
from dassl.config import CfgNode
from dassl.data import TaskSpace
from dassl.utils import UserError
from prompting.templates import TemplatePrompter
from prompting.words import cut_all, embed_words, encoder_of

from .language_model import continue_texts
from .step_texts import words_of


class ImageWords(nn.Module):
    """A sentence about each image, from its most likely classes under zero-shot CLIP.

    ``{image}`` in IMAGE_TEMPLATE is replaced by the TOP_CLASSES best classes under the task's own
    templates, in the order of the task's classes; with GENERATOR neural the language model
    continues the sentence. The sentence depends only on the set of these classes, and is generated
    once, when the set first occurs.

    Args:
        options: the node TRAINER.COT.
        text: the frozen text tower; not stored.
        used: tokens of the longest prompt without a sentence. Continuations that do not fit beside
            it are cut at a word, and the log counts them.
        follow: whether a context stands in front of the sentences.

    Raises:
        UserError: IMAGE_TEMPLATE alone does not fit.
    """

    def __init__(
        self, options: CfgNode, space: TaskSpace, text: TextEncoder, used: int, follow: bool
    ):
        super().__init__()
        self.count = min(options.TOP_CLASSES, space.num_classes)
        self.names = [words_of(name) for name in space.classnames]
        self.template = options.IMAGE_TEMPLATE.replace("{task}", words_of(space.prompt_names[0]))
        self.model = options.LM if options.GENERATOR == "neural" else None
        self.max_tokens, self.used, self.follow = options.LM_TOKENS, used, follow
        self.zero_shot = TemplatePrompter(space, text)
        self.sentences: dict[tuple[int, ...], str] = {}
        by_length = sorted(self.names, key=lambda name: len(text.tokenizer.encode(name)))
        longest = self._fill(by_length[-self.count :])
        if not self._fits(longest, text):
            raise UserError(
                f"no room is left for {longest!r} in front of prompts of {used} tokens: the text "
                f"tower takes {text.context_length}; lower TRAINER.COT.TOP_CLASSES, N_CTX or "
                "LM_TOKENS, or shorten IMAGE_TEMPLATE"
            )

    def _fill(self, names: list[str]) -> str:
        return self.template.replace("{image}", " or ".join(names)).rstrip(" ,;:.")

    def _fits(self, sentence: str, text: TextEncoder) -> bool:
        ids = encoder_of(text, self.follow)(f"{sentence},")
        return len(ids) <= text.context_length - self.used

    @torch.no_grad()
    def top_classes(self, image_features: torch.Tensor) -> list[tuple[int, ...]]:
        """The top classes of normalised image features (B, e), in ascending order."""
        with torch.autocast(image_features.device.type, enabled=False):
            scores = image_features.float() @ self.zero_shot.features.T  # (B, C)
        best = scores.topk(self.count, dim=1).indices
        return [tuple(classes) for classes in best.sort(dim=1).values.tolist()]

    def forward(
        self, text: TextEncoder, image_features: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each set of top classes: the images (b,) that have it, and its embedded words (p, d).

        Args:
            image_features: (B, e), normalised.
        """
        images = defaultdict(list)
        for number, classes in enumerate(self.top_classes(image_features)):
            images[classes].append(number)
        self.write(list(images), text)
        device = image_features.device
        return [
            (
                torch.tensor(numbers, device=device),
                embed_words(self.sentences[classes], text, self.follow).to(device),
            )
            for classes, numbers in images.items()
        ]

    def write(self, sets: list[tuple[int, ...]], text: TextEncoder) -> None:
        """Generate the sentences about sets of classes that have none yet."""
        new = [classes for classes in sets if classes not in self.sentences]
        if not new:
            return
        sentences = [self._fill([self.names[c] for c in classes]) for classes in new]
        if self.model is not None:
            sentences = continue_texts(self.model, sentences, self.max_tokens)
        fitting = cut_all(sentences, lambda sentence: self._fits(sentence, text))
        for classes, sentence in zip(new, fitting, strict=True):
            self.sentences[classes] = f"{sentence.rstrip(' ,;:.')},"

    def show(self, counts: Counter) -> list[str]:
        """The sentences about sets of classes, with the number of images of each set."""
        return [f"  {count} x {self.sentences[classes]}" for classes, count in counts.most_common()]
