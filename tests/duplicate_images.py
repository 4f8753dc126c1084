"""Real images, copies of them as found on the web, and an encoder that recognises such copies."""

from __future__ import annotations

import io
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from stylesim.core.conf import embedded
from stylesim.core.images import open_image
from stylesim.data.shards.shard_samples import read_shards
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance, StyleEncoder


@cache
def stylecross_images(count: int) -> tuple[Image.Image, ...]:
    """Return images of StyleCross' validation shards, upright RGB."""
    samples = islice(iter(read_shards(embedded("data/stylecross/validation"))), 0, count * 40, 40)
    return tuple(open_image(sample.image) for sample in samples)  # type: ignore[arg-type]


def save(image: Image.Image, file: Path, **options: Any) -> Path:
    """Save an image, and create its folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)
    return file


def recompress(image: Image.Image, quality: int = 60) -> Image.Image:
    """Return the image after a JPEG compression."""
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data)


class ThumbnailEncoder(StyleEncoder):
    """Grey thumbnails of 12 x 12 pixels, centred at their mean: they do not depend on size or compression."""

    def __init__(self) -> None:
        super().__init__(144, Preprocessing(48, interpolation="bilinear"), Provenance("thumbnails", "none"))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        small = F.avg_pool2d(images.mean(dim=1, keepdim=True), 4).flatten(1)
        return F.normalize(small - small.mean(dim=1, keepdim=True), dim=1)
