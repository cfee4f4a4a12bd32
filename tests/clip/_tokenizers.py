"""Tokenizers of towers other than CLIP's, without files of the hub."""

import zlib

from open_clip.tokenizer import get_clean_fn

ODD = ["", "a", "A Cat", "black-tailed deer", "St. John's wort", "Ünïcödé naïve", "AT&amp;T", "x_y"]
ODD += [
    "tabs\tand\nlines ",
    "  blanks   inside ",
    "emoji 🦊 fox",
    "汉字 词",
    "(a) [b] {c}",
    "100% 3.5",
]
ODD_TEXTS = [f"{left} {right}" for left in ODD for right in ODD][:200] + [o * 3 for o in ODD]
WORDS = ("the", "cat", "a", "photo", "of", "s", "x", "y", "black", "deer", "##e", "##d", "d", "e")


class WordTokenizer:
    """An id for each word, with the ids that a tower of another family has around them."""

    def __init__(self, prefix_ids=(), suffix_ids=(1,), pad_id=1, clean="canonicalize", size=90):
        self.prefix_ids, self.suffix_ids, self.pad_id = prefix_ids, suffix_ids, pad_id
        self.size, self.clean = size, get_clean_fn(clean)

    def encode(self, text):
        ids = [zlib.crc32(word.encode()) % self.size for word in self.clean(text).split()]
        return [5 + i for i in ids]  # lower ids are special

    encode_after = encode

    def decode(self, ids):
        return " ".join(f"w{i}" for i in ids)


def save_hub_tokenizer(folder, kind):
    """Write a small tokenizer of the hub: "t5", "mt5", "gemma", "bert", or "roberta"."""
    import tokenizers as tk
    from transformers import PreTrainedTokenizerFast

    pre, post, decoders = tk.pre_tokenizers, tk.processors, tk.decoders
    if kind in ("t5", "mt5", "gemma"):
        letters = [chr(c) for c in range(97, 123)]
        pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
        pieces += [(f"▁{w}", -3.0) for w in WORDS[:10]] + [(w, -4.0) for w in WORDS[:10]]
        found = [p for p, _ in pieces]
        pieces += [(letter, -6.0) for letter in letters if letter not in found]
        inner = tk.Tokenizer(tk.models.Unigram(pieces, unk_id=2))
        scheme = "never" if kind == "gemma" else "always"
        inner.pre_tokenizer = pre.Metaspace(prepend_scheme=scheme)
        inner.decoder = decoders.Metaspace(prepend_scheme=scheme)
        inner.post_processor = post.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
        special = {"pad_token": "</s>" if kind == "t5" else "<pad>", "eos_token": "</s>"}
    elif kind == "bert":
        letters = [chr(c) for c in range(97, 123)]
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, ".", ",", "-"]
        vocabulary += [*letters, *(f"##{letter}" for letter in letters)]
        vocabulary = list(dict.fromkeys(vocabulary))
        table = {word: i for i, word in enumerate(vocabulary)}
        inner = tk.Tokenizer(tk.models.WordPiece(table, unk_token="[UNK]"))
        inner.normalizer, inner.pre_tokenizer = (
            tk.normalizers.BertNormalizer(),
            pre.BertPreTokenizer(),
        )
        inner.post_processor = post.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        alphabet = sorted(pre.ByteLevel.alphabet())
        table = {
            w: i for i, w in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet, "Ġa", "Ġc"])
        }
        inner = tk.Tokenizer(tk.models.BPE(table, [("Ġ", "a"), ("Ġ", "c")], unk_token="<unk>"))
        inner.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        inner.post_processor = post.RobertaProcessing(
            ("</s>", 2), ("<s>", 0), add_prefix_space=False
        )
        special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=inner, padding_side="right", **special)
    wrapped.save_pretrained(folder)
    return len(inner.get_vocab())
