"""CoT: chain of thought prompt tuning. https://arxiv.org/abs/2304.07919"""

from .trainer import CoT

__all__ = ["CoT"]
