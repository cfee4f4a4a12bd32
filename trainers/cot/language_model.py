"""Texts continued by a causal language model of ``transformers``, an optional extra."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock

from dassl.utils import UserError, cache_folder, read_json, write_json

BATCH = 32
SENTENCE_END = re.compile(r"[\n.!?]")


def continue_texts(model: str, texts: list[str], max_tokens: int) -> list[str]:
    """Each text with what the model says next, up to the end of the sentence.

    The model takes the likeliest token every time, so the same text gives the same answer. It is
    asked once: answers are kept as JSON in the user's cache folder, a file per model and
    ``max_tokens``, where they can be read and corrected. An empty answer leaves the text as it is;
    the log counts them.

    Args:
        model: a local folder of a model and its tokenizer, or a name of the Hugging Face hub.
        max_tokens: at most so many tokens of the model are added.

    Raises:
        UserError: ``transformers`` or the model is missing; the kept answers cannot be read.
    """
    path = _kept(model, max_tokens)
    answers = _read(path)
    _tell(model, path)
    if not answers.keys() >= set(texts):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            answers = _read(path)  # another run may have asked the same meanwhile
            new = [text for text in dict.fromkeys(texts) if text not in answers]
            with torch.random.fork_rng(devices=[]):  # a run with kept answers starts the same
                said = _ask(model, new, max_tokens) if new else ()
            answers |= zip(new, said, strict=True)
            write_json({"model": model, "texts": answers}, path)
    said = [answers[text].strip().rstrip(" .") or text for text in texts]
    if empty := sum(text == answer for text, answer in zip(texts, said, strict=True)):
        print(f"{empty} of {len(texts)} prompts got an empty continuation and stay as they are")
    return said


@lru_cache  # once: sentences on images are asked for batch by batch
def _tell(model: str, path: Path) -> None:
    print(f"Prompts written by {model}: {path}")


def _kept(model: str, max_tokens: int) -> Path:
    key = json.dumps([_identity(model), max_tokens])
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return cache_folder("prompts", f"{Path(model).name}-{digest}.json")


@lru_cache  # a model is large, and sentences on images are asked for batch by batch
def _identity(model: str) -> tuple[str, ...]:
    """A name of the hub, or the content of a folder."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if model.startswith((".", "/", "~")):
            raise UserError(f"there is no folder {model} with a language model (TRAINER.COT.LM)")
        return (model,)
    parts = []
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            parts += [path.name, hashlib.file_digest(file, "sha256").hexdigest()]
    return tuple(parts)


def _read(path: Path) -> dict[str, str]:
    """The answers by their texts, as they were given."""
    if not path.exists():
        return {}
    content = read_json(path)
    known = content.get("texts") if isinstance(content, dict) else None
    if not isinstance(known, dict) or not all(isinstance(text, str) for text in known.values()):
        raise UserError(f"{path} holds something else than prompts; delete it to ask again")
    return known


def _ask(model: str, texts: list[str], max_tokens: int) -> list[str]:
    tokenizer, network = _load(model)
    rows: dict[int, list[tuple[str, list[int]]]] = defaultdict(list)
    for text in dict.fromkeys(texts):
        ids = tokenizer(text)["input_ids"]
        rows[len(ids)].append((text, ids))  # texts of one length need no padding
    answers = {}
    for group in rows.values():
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
            said = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            for (text, _), words in zip(part, said, strict=True):
                answers[text] = _join(text, words)
    return [answers[text] for text in texts]


def _join(text: str, words: str) -> str:
    """A text and the first sentence of what follows it; underscores would become spaces."""
    words = SENTENCE_END.split(words.replace("_", " "), maxsplit=1)[0]
    return " ".join((text + words).split())


@lru_cache(maxsize=1)  # new images may have new questions, and a suite's tasks share the model
def _load(model: str):
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise UserError(
            "TRAINER.COT.GENERATOR neural needs the package transformers, which is not "
            "installed: pip install transformers, or take the generator rule"
        ) from None
    try:
        folder = str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model
        return AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the language model {model} cannot be loaded ({str(error).strip().splitlines()[0]}); "
            "set TRAINER.COT.LM to a local folder with a model and its tokenizer, or to a name of "
            "the Hugging Face hub on a machine that reaches it"
        ) from None
