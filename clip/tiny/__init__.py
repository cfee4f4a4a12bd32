"""The embedded backbone: a CLIP of 4.6 M parameters for digits of 32 x 32 pixels.

No weights are shipped. On first use it is pre-trained on digits rendered from matplotlib's fonts
and on captions whose truth is known, in seconds on a CPU, and kept in the user's cache. It has
never seen a written digit.
"""

from .cache import tiny_file, tiny_weights
from .recipe import VIT, Recipe

__all__ = ["VIT", "Recipe", "tiny_file", "tiny_weights"]
