"""The batches of a training stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from stylesim.core.images.recolour import Recolouring
from stylesim.data.views import DecodedImage, TwoViews, View


class Batch(NamedTuple):
    """One micro-batch of one rank: the requested number of images minus the damaged ones."""

    views: UInt8[Tensor, "v b 3 h w"]
    """`v` views of each image: RGB in 0..255, not normalised."""
    tags: Bool[Tensor, "b t"]
    """Which tags of the vocabulary each image has; an image may have none."""
    keys: list[str]
    """`<root>/<shard>/<key>`, unique within a run."""
    damaged: list[tuple[str, str]]
    """(key or shard, reason) of each sample that is missing from this batch."""


class UncutBatch(NamedTuple):
    """A micro-batch before its views are cut: whole images of any size, which move to the device as one tensor."""

    pixels: UInt8[Tensor, " n"]
    """The images, `[h w 3]` each, flattened and joined."""
    sizes: list[tuple[int, int]]
    """Height and width of each image."""
    drawn: list[tuple[View, View]]
    """The views to cut from each image."""
    grey: list[bool]
    """Whether the views of each image lose their colour."""
    colours: list[tuple[Recolouring, Recolouring] | None]
    """How the views of each image are recoloured."""
    tags: Bool[Tensor, "b t"]
    keys: list[str]
    damaged: list[tuple[str, str]]

    @classmethod
    def of(
        cls,
        images: Sequence[DecodedImage],
        tags: Bool[Tensor, "b t"],
        keys: list[str],
        damaged: list[tuple[str, str]],
    ) -> UncutBatch:
        """Join decoded images into a batch."""
        return cls(
            torch.cat([image.pixels.flatten() for image in images] or [torch.empty(0, dtype=torch.uint8)]),
            [(image.pixels.shape[0], image.pixels.shape[1]) for image in images],
            [image.views for image in images],
            [image.grey for image in images],
            [image.colours for image in images],
            tags,
            keys,
            damaged,
        )

    def cut(self, views: TwoViews) -> Batch:
        """Return the batch with its views, which are cut on the device that the pixels are on."""
        pixels = self.pixels.split([height * width * 3 for height, width in self.sizes])
        pairs = [
            views.cut_both(DecodedImage(image.view(*size, 3), drawn, grey, colours))
            for image, size, drawn, grey, colours in zip(
                pixels, self.sizes, self.drawn, self.grey, self.colours, strict=True
            )
        ]
        return Batch(stack_views(pairs, views.size, self.pixels.device), self.tags, self.keys, self.damaged)


def stack_views(
    pairs: Sequence[UInt8[Tensor, "2 3 s s"]], size: int, device: torch.device | None = None
) -> UInt8[Tensor, "2 b 3 s s"]:
    """Stack the views of a batch; the result has no image if all images of the batch are damaged."""
    return torch.stack([*pairs], 1) if pairs else torch.empty(2, 0, 3, size, size, dtype=torch.uint8, device=device)
