"""Augmentation of a batch of images that are tensors, with a generator of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augment(x: Tensor, generator: torch.Generator, crop: int = 4, flip: bool = True, cutout: int = 0) -> Tensor:
    """Shifted, mirrored and partly covered images, each by chance.

    Args:
        x: `[B, C, H, W]`, normalised. Borders that are shifted in, and covered squares, are zero, the mean of
            normalised data. Values of another rank are returned as they are, since only images have a left and a right.
        generator: on the CPU; draws the same for the same state, whatever the options.
        crop: pixels of the border that the image is cut out of (He et al. 2016: 4).
        flip: mirror half of the images left to right.
        cutout: side of a zeroed square, its centre anywhere in the image (DeVries and Taylor 2017: 16); 0 for none.
    """
    if x.dim() != 4:
        return x
    B, C, H, W = x.shape
    draws = torch.rand((5, B), generator=generator)
    rows, columns = torch.arange(H), torch.arange(W)
    top, left = (draws[:2] * (2 * crop + 1)).long()
    columns = torch.where((draws[2] < 0.5 if flip else draws[2] < 0)[:, None], columns.flip(0), columns) + left[:, None]
    rows = rows + top[:, None]
    padded = functional.pad(x, (crop, crop, crop, crop)) if crop else x
    at = torch.arange(B)[:, None, None, None], torch.arange(C)[None, :, None, None]
    x = padded[*at, rows[:, None, :, None], columns[:, None, None, :]]
    if not cutout:
        return x
    y0, x0 = (draws[3:] * torch.tensor([[H], [W]])).long() - cutout // 2
    tall, wide = (_within(start, cutout, size) for start, size in ((y0, H), (x0, W)))
    return x.masked_fill((tall[:, :, None] & wide[:, None, :])[:, None], 0)


def _within(start: Tensor, length: int, size: int) -> Tensor:
    """`[B, size]`: whether a position lies in `start .. start + length - 1`."""
    position = torch.arange(size) - start[:, None]
    return (position >= 0) & (position < length)
