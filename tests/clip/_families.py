"""Miniatures of the families of backbones: open_clip's own classes with random weights."""

import json

import open_clip
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CustomTextCLIP
from safetensors.torch import save_file

from tests.clip._tokenizers import WordTokenizer, save_hub_tokenizer

SIZES = {"width": 32, "heads": 2, "layers": 3}
VIT = {"layers": 3, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
TIMM = {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 160}
CONV = {"timm_model_name": "test_efficientnet", "timm_pool": "avg", "timm_proj": "linear"}
SIGLIP = {"no_causal_mask": True, "pool_type": "last", "context_length": 48, "vocab_size": 99}
SIGLIP |= {"hf_tokenizer_name": "x", "tokenizer_kwargs": {"clean": "canonicalize"}}
HUB = {"hf_model_name": "x", "hf_tokenizer_name": "x", "context_length": 60}
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}

# family -> configuration, kind of tokenizer ("": CLIP's), preprocessing
FAMILIES = {
    "clip": ({"text_cfg": {}, "vision_cfg": VIT}, "", {}),
    "pe": (
        {
            "text_cfg": {"context_length": 32},
            "vision_cfg": {**TIMM, "timm_proj": None},
            "custom_text": True,
        },
        "",
        {**HALF, "interpolation": "bilinear"},
    ),
    "metaclip2": (
        {
            "text_cfg": {
                "pool_type": "eos",
                "eos_id": 1,
                "vocab_size": 99,
                "hf_tokenizer_name": "x",
            },
            "vision_cfg": VIT,
        },
        "mt5",
        {},
    ),
    "mobileclip": (
        {
            "text_cfg": {"no_causal_mask": True, "context_length": 40},
            "vision_cfg": {**CONV, "image_size": 64},
            "custom_text": True,
        },
        "",
        {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"},
    ),
    "siglip": (
        {
            "text_cfg": {**SIGLIP, "proj_bias": True, "norm_kwargs": {"eps": 1e-6}},
            "vision_cfg": VIT,
            "custom_text": True,
            "init_logit_bias": -10,
        },
        "t5",
        HALF,
    ),
    "siglip2": (
        {
            "text_cfg": {**SIGLIP, "proj_bias": True, "act_kwargs": {"approximate": "tanh"}},
            "vision_cfg": VIT,
            "custom_text": True,
            "init_logit_bias": -10,
        },
        "gemma",
        HALF,
    ),
    "clipa": (
        {
            "text_cfg": {**SIGLIP, "tokenizer_kwargs": {"strip_sep_token": True}},
            "vision_cfg": {
                **VIT,
                "no_ln_pre": True,
                "pool_type": "avg",
                "final_ln_after_pool": True,
            },
        },
        "bert",
        {"interpolation": "bilinear", "resize_mode": "squash"},
    ),
    "coca": (
        {
            "text_cfg": {"context_length": 39, "embed_cls": True, "output_tokens": True},
            "vision_cfg": {**VIT, "attentional_pool": True, "attn_pooler_heads": 2}
            | {"output_tokens": True},
            "multimodal_cfg": {**SIZES, "context_length": 39, "attn_pooler_heads": 2},
            "custom_text": True,
        },
        "",
        {},
    ),
    "xlm-roberta": (
        {"text_cfg": {**HUB, "hf_pooler_type": "mean_pooler"}, "vision_cfg": VIT},
        "roberta",
        {},
    ),
    "bert": (
        {
            "text_cfg": {
                **HUB,
                "hf_proj_type": "mlp",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
            },
            "vision_cfg": VIT,
            "custom_text": True,
        },
        "bert",
        {},
    ),
    "mt5": ({"text_cfg": {**HUB, "hf_pooler_type": "mean_pooler"}, "vision_cfg": VIT}, "mt5", {}),
    "m2m_100": (
        {
            "text_cfg": {**HUB, "hf_proj_type": "linear", "hf_pooler_type": "cls_pooler"},
            "vision_cfg": VIT,
            "init_logit_bias": -10,
        },
        "roberta",
        {},
    ),
}
HUB_MODELS = ("xlm-roberta", "bert", "mt5", "m2m_100")
STAND_INS = {  # for the tokenizers of the hub, where transformers is not installed
    "t5": WordTokenizer(),
    "mt5": WordTokenizer((), (1,), 0, "whitespace"),
    "gemma": WordTokenizer((), (1,), 0),
    "bert": WordTokenizer((2,), (0,), 0, "whitespace"),
}


def hub_model_config(family, vocab_size, pad_id):
    """A small configuration of a text model of transformers."""
    import transformers

    sizes = {"vocab_size": vocab_size, "pad_token_id": pad_id}
    usual = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    if family in ("bert", "xlm-roberta"):
        cls = transformers.BertConfig if family == "bert" else transformers.XLMRobertaConfig
        return cls(**sizes, **usual, intermediate_size=64, max_position_embeddings=64)
    if family == "mt5":
        return transformers.MT5Config(
            **sizes, d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2
        )
    return transformers.M2M100Config(
        **sizes,
        d_model=32,
        **{f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers",)},
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
    )


def make_family(folder, family, hub=False):
    """Write a miniature as open_clip saves models, and give open_clip's own model.

    Args:
        hub: also write the tokenizer of the hub, which needs transformers.
    """
    config, kind, preprocess = FAMILIES[family]
    config = {"embed_dim": 32, **config, "text_cfg": {**SIZES, **config["text_cfg"]}}
    config["vision_cfg"] = {"timm_model_pretrained": False, **config["vision_cfg"]}
    saved = {"model_cfg": config, "preprocess_cfg": preprocess}
    size = save_hub_tokenizer(folder, kind) if hub and kind else 99
    built = json.loads(json.dumps(config))
    text = built["text_cfg"]
    if family in HUB_MODELS:
        pad_id = {"roberta": 1, "mt5": 0, "bert": 0}[kind]
        hub_model_config(family, size, pad_id).save_pretrained(folder)
        text |= {"hf_model_name": str(folder), "hf_model_pretrained": False}
    (folder / "open_clip_config.json").write_text(json.dumps(saved))
    custom = built.pop("custom_text", False) or family in HUB_MODELS
    cls = CustomTextCLIP if custom else open_clip.CLIP
    cls = CoCa if "multimodal_cfg" in built else cls
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(**built).eval().requires_grad_(False)
        for parameter in model.parameters():  # also those that start at zero
            parameter += 0.02 * torch.randn(parameter.shape)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model
