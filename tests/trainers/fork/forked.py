"""A trainer as forks of CoOp write them, on the public names of Dassl and clip alone.

Written for the tests from those interfaces: it knows nothing of this project's own helpers.
"""

import os.path as osp

import torch
import torch.nn as nn
from torch.nn import functional as F

from clip import clip
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import load_checkpoint, load_pretrained_weights

tokenizer = _Tokenizer()


def load_clip_to_cpu(cfg):
    path = clip._download(clip._MODELS[cfg.MODEL.BACKBONE.NAME])
    try:
        archive = torch.jit.load(path, map_location="cpu").eval()
        weights = archive.state_dict()
    except RuntimeError:
        weights = torch.load(path, map_location="cpu")
    return clip.build_model(weights)


class TextEncoder(nn.Module):
    def __init__(self, clip_model):
        super().__init__()
        self.transformer = clip_model.transformer
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.dtype = clip_model.dtype

    def forward(self, prompts, tokens):
        hidden = prompts + self.positional_embedding.type(self.dtype)
        hidden = self.transformer(hidden.permute(1, 0, 2)).permute(1, 0, 2)
        hidden = self.ln_final(hidden).type(self.dtype)
        ends = hidden[torch.arange(len(hidden)), tokens.argmax(dim=-1)]
        return ends @ self.text_projection


class PromptLearner(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        size = cfg.INPUT.SIZE[0]
        assert size == clip_model.visual.input_resolution
        self.n_ctx = cfg.TRAINER.FORKED.N_CTX
        width = clip_model.ln_final.weight.shape[0]
        dtype = clip_model.dtype
        start = torch.empty(self.n_ctx, width, dtype=dtype)
        nn.init.normal_(start, std=0.02)
        self.ctx = nn.Parameter(start)
        names = [name.replace("_", " ") for name in classnames]
        self.name_lens = [len(tokenizer.encode(name)) for name in names]
        filled = [" ".join(["X"] * self.n_ctx) + " " + name + "." for name in names]
        self.tokenized_prompts = torch.cat([clip.tokenize(text) for text in filled])
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokenized_prompts).type(dtype)
        self.register_buffer("token_prefix", embedding[:, :1, :])
        self.register_buffer("token_suffix", embedding[:, 1 + self.n_ctx :, :])

    def forward(self):
        ctx = self.ctx.unsqueeze(0).expand(len(self.token_prefix), -1, -1)
        return torch.cat([self.token_prefix, ctx, self.token_suffix], dim=1)


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.prompt_learner = PromptLearner(cfg, classnames, clip_model)
        self.tokenized_prompts = self.prompt_learner.tokenized_prompts
        self.image_encoder = clip_model.visual
        self.text_encoder = TextEncoder(clip_model)
        self.logit_scale = clip_model.logit_scale
        self.dtype = clip_model.dtype

    def forward(self, image):
        image = self.image_encoder(image.type(self.dtype))
        text = self.text_encoder(self.prompt_learner(), self.tokenized_prompts)
        image = image / image.norm(dim=-1, keepdim=True)
        text = text / text.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * image @ text.t()


@TRAINER_REGISTRY.register()
class Forked(TrainerX):
    """CoOp once more, in a fork's own words."""

    @classmethod
    def add_config(cls, cfg):
        """What a fork adds to train.py's extend_cfg."""
        cfg.TRAINER.FORKED = type(cfg)({"N_CTX": 4, "PREC": "fp32"})

    def check_cfg(self, cfg):
        assert cfg.TRAINER.FORKED.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        classnames = self.dm.dataset.classnames
        clip_model = load_clip_to_cpu(cfg)
        if cfg.TRAINER.FORKED.PREC in ("fp32", "amp"):
            clip_model.float()
        self.model = CustomCLIP(cfg, classnames, clip_model)
        for name, parameter in self.model.named_parameters():
            if "prompt_learner" not in name:
                parameter.requires_grad_(False)
        if cfg.MODEL.INIT_WEIGHTS:
            load_pretrained_weights(self.model.prompt_learner, cfg.MODEL.INIT_WEIGHTS)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        summary = {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return summary

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def load_model(self, directory, epoch=None):
        if not directory:
            print("Note that load_model() is skipped as no pretrained model is given")
            return
        file = "model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            checkpoint = load_checkpoint(osp.join(directory, name, file))
            state = checkpoint["state_dict"]
            for key in ("token_prefix", "token_suffix"):
                state.pop(key, None)
            self._models[name].load_state_dict(state, strict=False)
