"""CoOp on Digits7 as one plain training loop: what ``train.py --trainer CoOp`` learns, bit for bit.

    python docs/plain_train.py      # from the repository's folder; no weights, no data, no GPU

No engine, records, checkpoints or sweeps. Every task of the suite is trained by itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import datasets  # noqa: E402, F401  (registers the datasets)
from clip import load_backbone  # noqa: E402
from dassl.config import CfgNode, get_cfg_default  # noqa: E402
from dassl.data import DataManager  # noqa: E402
from dassl.data.datasets import build_dataset  # noqa: E402
from dassl.optim import build_lr_scheduler, build_optimizer  # noqa: E402
from dassl.utils import set_random_seed  # noqa: E402
from prompting.precision import with_input_of  # noqa: E402
from prompting.prompt_learner import PromptLearner  # noqa: E402


def settings(*options: object) -> CfgNode:
    """The configuration of the run; ``options`` are KEY VALUE pairs as on the command line."""
    cfg = get_cfg_default()
    cfg.merge_from_file(ROOT / "configs/datasets/digits7.yaml")
    cfg.merge_from_file(ROOT / "configs/trainers/CoOp/tiny_ep50.yaml")
    cfg.merge_from_list(["SEED", "1", "VERBOSE", "False", *map(str, options)])
    return cfg


def train_task(cfg: CfgNode, clip, data: DataManager) -> tuple[torch.Tensor, float]:
    """The learned context (m, d) of one task, and its accuracy in percent."""
    text, scale = clip.text_tower, clip.logit_scale.exp()
    prompts = PromptLearner(data.dataset.classnames, text, n_ctx=16)  # owns the context, learned
    optimizer = build_optimizer(list(prompts.parameters()), cfg.OPTIM)
    schedule = build_lr_scheduler(optimizer, cfg.OPTIM)

    def logits(images: torch.Tensor) -> torch.Tensor:  # (B, C)
        with torch.no_grad():  # the towers are frozen
            x = F.normalize(clip.encode_image(images).float(), dim=-1)  # (B, e)
        w = F.normalize(text.encode(prompts()).float(), dim=-1)  # (C, e), with gradients
        return scale * torch.einsum("be,ce->bc", x, w)

    for epoch in range(cfg.OPTIM.MAX_EPOCH):
        data.train_loader_x.set_epoch(epoch)  # the order of the images
        for batch in data.train_loader_x:
            loss = data.space.cross_entropy(logits(batch["img"]), batch["label"], batch["task"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()

    with torch.no_grad():
        right = [logits(batch["img"]).argmax(1) == batch["label"] for batch in data.test_loader]
    right = torch.cat(right)
    return prompts.ctx.detach(), 100 * int(right.sum()) / len(right)


def main(*options: object) -> dict[str, tuple[torch.Tensor, float]]:
    """Train the tasks one after the other; context and accuracy by task name."""
    cfg = settings(*options)
    clip = load_backbone(cfg.MODEL.BACKBONE.NAME, device="cpu", precision="fp32")
    cfg, results = with_input_of(cfg, clip), {}
    suite = build_dataset(cfg)
    for t, task in enumerate(suite.space.tasks):
        set_random_seed(cfg.SEED)  # every task starts from the seed
        results[task.name] = train_task(cfg, clip, DataManager(cfg, dataset=suite.only_task(t)))
        print(f"{task.name}: {results[task.name][1]:.2f}%")
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
