"""One picture that shows a retouch: before, after, and what changed."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_LONGEST = 1600
_GAIN = 8
_LIGHTER, _DARKER = np.array([[255, 150, 0], [0, 150, 255]], np.float32)
_CAPTIONS = ("before", "after", f"what changed (x{_GAIN}): orange lighter, blue darker")


def compare(before: Image.Image, after: Image.Image) -> Image.Image:
    """Three captioned panels of at most 1600 pixels, side by side for an upright photo, stacked for a wide one.

    Args:
        before, after: pictures of one size in any mode; transparency is ignored.

    Returns:
        An RGB picture.
    """
    small = [_shrink(picture) for picture in (before, after)]
    panels = [*small, changes(*small)]
    size = max(14, max(small[0].size) // 40)
    labelled = [_caption(panel, text, size) for panel, text in zip(panels, _CAPTIONS, strict=True)]
    return _arrange(labelled, beside=before.width <= before.height, gap=size // 2)


def changes(before: Image.Image, after: Image.Image) -> Image.Image:
    """The photo dim and grey, with orange where it became lighter and blue where darker.

    Args:
        before, after: RGB, of one size.

    Returns:
        RGB; the colour is full where a channel changed by 32 grey levels or more.
    """
    difference = np.asarray(after).astype(np.float32) - np.asarray(before)
    amount = (np.abs(difference).max(2, keepdims=True) * (_GAIN / 255)).clip(0, 1)
    colour = np.where(difference.sum(2, keepdims=True) >= 0, _LIGHTER, _DARKER)
    dim = np.asarray(before.convert("L")).astype(np.float32)[..., None] * 0.4
    return Image.fromarray(np.rint(dim * (1 - amount) + colour * amount).astype(np.uint8))


def _shrink(picture: Image.Image) -> Image.Image:
    picture = picture.convert("RGB")
    picture.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BOX)
    return picture


def _caption(panel: Image.Image, text: str, size: int) -> Image.Image:
    """The panel below a line of text; wider than the panel where the text is."""
    font = ImageFont.load_default(size)
    width = max(panel.width, int(font.getlength(text)) + size)
    labelled = Image.new("RGB", (width, panel.height + 2 * size), "white")
    ImageDraw.Draw(labelled).text((size // 2, size), text, "black", font, anchor="lm")
    labelled.paste(panel, (0, 2 * size))
    return labelled


def _arrange(panels: list[Image.Image], *, beside: bool, gap: int) -> Image.Image:
    widths, heights = zip(*(panel.size for panel in panels), strict=True)
    gaps = gap * (len(panels) - 1)
    size = (sum(widths) + gaps, max(heights)) if beside else (max(widths), sum(heights) + gaps)
    sheet = Image.new("RGB", size, "white")
    x = y = 0
    for panel in panels:
        sheet.paste(panel, (x, y))
        x, y = (x + panel.width + gap, y) if beside else (x, y + panel.height + gap)
    return sheet
