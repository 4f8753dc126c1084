"""The palette of an image: one soft histogram per colour channel."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from stylesim.core.errors import ConfigError
from stylesim.encoders.preprocessing import Preprocessing


class Palette(nn.Module):
    """Map images to `[b 3*levels]`: for each channel, the square root of the share of pixels at each level.

    A value between two levels is divided between them in proportion to its distance. With square roots, the inner
    product of two palettes is their Bhattacharyya coefficient, and the few pixels of an outline are not lost beside
    the background.

    Args:
        levels: Number of levels per channel, at least 2.
        preprocessing: The preprocessing that the images were normalised with.
    """

    def __init__(self, levels: int, preprocessing: Preprocessing) -> None:
        super().__init__()
        if levels < 2:
            raise ConfigError(f"A palette must have at least 2 levels per channel, got {levels}.")
        self.levels, self.preprocessing = levels, preprocessing

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Return the palettes of normalised images."""
        position = self.preprocessing.denormalise(images).flatten(2) * (self.levels - 1)
        lower = position.floor().clamp_max(self.levels - 2)
        fraction = position - lower
        counts = position.new_zeros(*position.shape[:2], self.levels)
        counts.scatter_add_(2, lower.long(), 1 - fraction).scatter_add_(2, lower.long() + 1, fraction)
        return (counts / position.shape[2]).sqrt().flatten(1)
