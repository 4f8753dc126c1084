"""Turn arrays and tensors of 8 bit values, or of floats in [0, 1], into PIL images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stylesim.core.errors import CorruptSampleError

if TYPE_CHECKING:
    from torch import Tensor

HALF_LEVEL = 0.5 / 255
"""Half of an 8 bit level, in [0, 1]: floats so far outside the range are rounding errors, and become 0 or 255."""


def image_of_array(source: np.ndarray | Tensor | Any) -> Image.Image:
    """Return an array `[h w]` or `[h w c]`, or a tensor `[c h w]`, as a PIL image.

    Raises:
        CorruptSampleError: If the source is of another type, shape or range.
    """
    if isinstance(source, np.ndarray):
        array = source
    elif hasattr(source, "detach"):  # a tensor, recognised without importing torch
        array = source.detach().cpu().float().numpy() if source.is_floating_point() else source.detach().cpu().numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
    else:
        raise CorruptSampleError(
            f"An image must be a path, an open file, bytes, a PIL image, an array or a tensor, got {type(source)}."
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise CorruptSampleError(
            f"An image array must have the shape [h w], [h w 3] or [h w 4], an image tensor [3 h w], got "
            f"{list(source.shape)}."
        )
    if np.issubdtype(array.dtype, np.floating):
        # Written so that NaN is refused as well.
        if not (array.min() >= -HALF_LEVEL and array.max() <= 1 + HALF_LEVEL):
            raise CorruptSampleError(
                f"A float image must have values in [0, 1], got {array.min():g} to {array.max():g}: "
                f"divide it by 255, or pass uint8."
            )
        array = (array * 255).round().clip(0, 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise CorruptSampleError(f"An image array must be uint8, or float in [0, 1], got {array.dtype}.")
    return Image.fromarray(np.ascontiguousarray(array))
