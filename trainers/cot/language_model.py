"""Texts continued by a causal language model (with the optional package ``transformers``)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock

from clip._fetch import hub_cache, quiet, require_hub
from dassl.utils import UserError, cache_folder, read_json, write_json
from dassl.utils.hashes import hash_file

BATCH = 32
SENTENCE_END = re.compile(r"[\n.!?]")


def continue_texts(model: str, texts: list[str], max_tokens: int) -> list[str]:
    """Each text with the model's continuation, up to the end of the sentence.

    Decoding is greedy, so a text always has the same continuation. It is generated once and stored
    as JSON in the user's cache folder, in one file per model and ``max_tokens``, where it can be
    read and corrected. A text with an empty continuation is returned unchanged; the log counts
    them.

    Args:
        model: a local folder with a model and its tokenizer, or a name on the Hugging Face hub.
        max_tokens: the maximum length of a continuation, in tokens.

    Raises:
        UserError: ``transformers`` or the model is missing; the stored texts cannot be read.
    """
    path = _cache_file(model, max_tokens)
    answers = _read(path)
    _log_file(model, path)
    if not answers.keys() >= set(texts):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            answers = _read(path)  # another run may have generated them in the meantime
            new = [text for text in dict.fromkeys(texts) if text not in answers]
            with torch.random.fork_rng(devices=[]):  # so that stored texts change no later draw
                generated = _generate(model, new, max_tokens) if new else ()
            answers |= zip(new, generated, strict=True)
            write_json({"model": model, "texts": answers}, path)
    continued = [answers[text].strip().rstrip(" .") or text for text in texts]
    if empty := sum(text == answer for text, answer in zip(texts, continued, strict=True)):
        print(f"{empty} of {len(texts)} prompts got an empty continuation and are unchanged")
    return continued


@lru_cache  # log once: sentences about images are generated batch by batch
def _log_file(model: str, path: Path) -> None:
    print(f"Prompts written by {model}: {path}")


def _cache_file(model: str, max_tokens: int) -> Path:
    key = json.dumps([_identity(model), max_tokens])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return cache_folder("prompts", f"{Path(model).name}-{digest}.json")


@lru_cache  # hashing a model is slow, and sentences about images are generated batch by batch
def _identity(model: str) -> tuple[str, ...]:
    """A name on the hub, or the content of a folder."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith((".", "/", "~")):
            raise UserError(f"TRAINER.COT.LM {model}: there is no such folder")
        return (model,)
    parts = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        parts += [path.name, hash_file(path)]
    return tuple(parts)


def _read(path: Path) -> dict[str, str]:
    """The stored texts by the texts that they continue."""
    if not path.exists():
        return {}
    content = read_json(path)
    known = content.get("texts") if isinstance(content, dict) else None
    if not isinstance(known, dict) or not all(isinstance(text, str) for text in known.values()):
        raise UserError(f"{path} does not contain prompts; delete it to generate them again")
    return known


def _generate(model: str, texts: list[str], max_tokens: int) -> list[str]:
    """Texts with their continuations."""
    tokenizer, network = _load(model)
    by_length: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
    for text in dict.fromkeys(texts):
        ids = tokenizer(text)["input_ids"]
        by_length[len(ids)].append((text, ids))  # texts of equal length need no padding
    answers = {}
    for group in by_length.values():
        for start in range(0, len(group), BATCH):
            part = group[start : start + BATCH]
            ids = torch.tensor([ids for _, ids in part])
            out = network.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_tokens,
                do_sample=False,
                pad_token_id=tokenizer.eos_token_id,
            )
            decoded = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for (text, _), words in zip(part, decoded, strict=True):
                answers[text] = _join(text, words)
    return [answers[text] for text in texts]


def _join(text: str, words: str) -> str:
    """A text and the first sentence of its continuation; underscores become spaces."""
    words = SENTENCE_END.split(words.replace("_", " "), maxsplit=1)[0]
    return " ".join((text + words).split())


@lru_cache(maxsize=1)  # shared by the tasks of a suite, and used again for new images
def _load(model: str):
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise UserError(
            "TRAINER.COT.GENERATOR neural needs the package transformers, which is not "
            "installed: pip install transformers, or set GENERATOR rule"
        ) from None
    sources = AutoTokenizer.from_pretrained, AutoModelForCausalLM.from_pretrained
    folder = Path(model).expanduser()
    if folder.is_dir():
        try:
            return tuple(load(str(folder)) for load in sources)
        except (OSError, ValueError) as error:
            raise UserError(
                f"the language model in {model} cannot be loaded ({_first_line(error)}): "
                "TRAINER.COT.LM takes a folder with a model and its tokenizer, or a name on the "
                "Hugging Face hub"
            ) from None
    try:
        with contextlib.suppress(OSError, ValueError), quiet():
            return tuple(load(model, local_files_only=True) for load in sources)
        require_hub()  # the hub's library retries for most of a minute
        return tuple(load(model) for load in sources)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the language model {model} is not on this machine and cannot be downloaded "
            f"({_first_line(error)}). On a machine with a network run `hf download {model}` and "
            f"copy {hub_cache(model)} to this one, or set TRAINER.COT.LM to a local folder with a "
            "model and its tokenizer"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
