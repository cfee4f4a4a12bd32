"""Digits rendered from fonts and bent until they look written, with what is true of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont

SIZE = 32  # pixels of an image
GRID = 8  # pixels of the scanner: the resolution of the UCI digits
FRAME = 48  # pixels of a glyph in the bank
GLYPH_HEIGHT, GLYPH_MAX_WIDTH = 40, 44
MEAN, STD = 0.3, 0.35

# File in matplotlib's font folder -> family.
FONTS = {
    "DejaVuSans": "sans",
    "DejaVuSans-Bold": "sans",
    "DejaVuSans-Oblique": "sans",
    "DejaVuSans-BoldOblique": "sans",
    "DejaVuSansMono": "mono",
    "DejaVuSansMono-Bold": "mono",
    "DejaVuSansMono-Oblique": "mono",
    "DejaVuSansMono-BoldOblique": "mono",
    "DejaVuSerif": "serif",
    "DejaVuSerif-Bold": "serif",
    "DejaVuSerif-Italic": "serif",
    "DejaVuSerif-BoldItalic": "serif",
    "STIXGeneral": "serif",
    "STIXGeneralBol": "serif",
    "STIXGeneralItalic": "serif",
    "STIXGeneralBolIta": "serif",
    "cmr10": "serif",
    "cmss10": "sans",
    "cmtt10": "mono",
    "cmb10": "serif",
    "cmti10": "serif",
}
FAMILIES = ("sans", "serif", "mono")
THIN, REGULAR, THICK = range(3)


def render_glyph(font: ImageFont.FreeTypeFont, digit: int) -> np.ndarray:
    """One digit in white on black, (FRAME, FRAME) in [0, 1], scaled to a common height."""
    page = Image.new("L", (200, 200), 0)
    ImageDraw.Draw(page).text((50, 30), str(digit), fill=255, font=font)
    glyph = page.crop(page.getbbox())
    width = round(glyph.width * GLYPH_HEIGHT / glyph.height)
    glyph = glyph.resize(
        (max(3, min(GLYPH_MAX_WIDTH, width)), GLYPH_HEIGHT), Image.Resampling.BILINEAR
    )
    frame = Image.new("L", (FRAME, FRAME), 0)
    frame.paste(glyph, ((FRAME - glyph.width) // 2, (FRAME - GLYPH_HEIGHT) // 2))
    return np.asarray(frame, dtype=np.float32) / 255


def render_bank() -> tuple[torch.Tensor, torch.Tensor]:
    """All digits in all fonts (fonts, 10, FRAME, FRAME), and the family of each font."""
    package = Path(importlib.util.find_spec("matplotlib").origin).parent
    folder = package / "mpl-data" / "fonts" / "ttf"
    fonts = [ImageFont.truetype(str(folder / f"{name}.ttf"), 120) for name in FONTS]
    bank = np.array([[render_glyph(font, digit) for digit in range(10)] for font in fonts])
    return torch.from_numpy(bank), torch.tensor([FAMILIES.index(f) for f in FONTS.values()])


class DigitImages:
    """An endless source of rendered digits; the same seed gives the same ones."""

    def __init__(self, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.bank, self.family = render_bank()

    def sample(self, count: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Normalised images (count, 3, SIZE, SIZE), and attributes (count,) by name."""
        font = self._choose(len(self.bank), count)
        digit = self._choose(10, count)
        stroke = self._choose(3, count)
        images = self.bank[font, digit][:, None]  # (count, 1, FRAME, FRAME)
        images, shape = self._bend(images)
        images, light = self._scan(change_strokes(images, stroke))
        attributes = {
            "digit": digit,
            "family": self.family[font],
            "stroke": stroke,
            **shape,
            **light,
        }
        return ((images - MEAN) / STD).expand(-1, 3, -1, -1).contiguous(), attributes

    def _bend(self, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Rotate, shear, stretch, shift and wobble each image, (count, 1, SIZE, SIZE)."""
        count = len(images)
        turn = self._uniform(count, -0.22, 0.22)  # radians
        shear = self._uniform(count, -0.45, 0.45)
        wide, high = self._uniform(count, 0.75, 1.35), self._uniform(count, 0.9, 1.15)
        right, down = self._uniform(count, -0.12, 0.12), self._uniform(count, -0.08, 0.08)
        slant = shear + turn.sin()
        matrix = torch.stack(
            [
                torch.stack([turn.cos() / wide, slant, right], 1),
                torch.stack([-turn.sin(), turn.cos() / high, down], 1),
            ],
            1,
        )  # (count, 2, 3)
        grid = F.affine_grid(matrix, [count, 1, SIZE, SIZE], align_corners=False)
        wobble = self._uniform(count, 0, 0.5)
        field = torch.randn(count, 2, 4, 4, generator=self.generator)
        field = F.interpolate(field, size=SIZE, mode="bicubic", align_corners=False)
        field = field * 0.35 * wobble[:, None, None, None]
        images = F.grid_sample(images, grid + field.permute(0, 2, 3, 1), align_corners=False)
        return images, {
            "slant": (slant > 0.18).long() - (slant < -0.18).long(),
            "tilt": (turn > 0.1).long() - (turn < -0.1).long(),
            "width": (wide > 1.2).long() - (wide < 0.9).long(),
            "wobble": (wobble > 0.25).long(),
        }

    def _scan(self, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Average to GRID pixels, dim, add noise, and enlarge to SIZE again."""
        images = F.avg_pool2d(images, SIZE // GRID)
        brightest = images.amax((1, 2, 3), keepdim=True).clamp_min(1e-3)
        gain, noise = self._uniform(len(images), 0.55, 1.0), self._uniform(len(images), 0, 0.15)
        images = images / brightest * gain[:, None, None, None]
        grain = torch.randn(images.shape, generator=self.generator)
        images = (images + grain * noise[:, None, None, None]).clamp(0, 1)
        images = F.interpolate(images, size=SIZE, mode="bilinear", align_corners=False)
        return images, {"dim": (gain < 0.72).long(), "noisy": (noise > 0.09).long()}

    def _uniform(self, count: int, low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=self.generator) * (high - low) + low

    def _choose(self, kinds: int, count: int) -> torch.Tensor:
        return torch.randint(kinds, (count,), generator=self.generator)


def change_strokes(images: torch.Tensor, stroke: torch.Tensor) -> torch.Tensor:
    """Strokes of (count, 1, h, w) made thin (half an erosion), left alone, or made thick."""
    eroded = -F.max_pool2d(-images, 3, 1, 1)
    dilated = F.max_pool2d(images, 3, 1, 1)
    stroke = stroke[:, None, None, None]
    thin = torch.where(stroke == THIN, (eroded + images) / 2, images)
    return torch.where(stroke == THICK, dilated, thin)
