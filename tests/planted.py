"""Real pictures as files, and copies of them as the web makes them."""

from __future__ import annotations

import io
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from stylesim.core.conf import embedded
from stylesim.core.images import open_image
from stylesim.curation.stage import SCHEMA, Part, Stage, conform
from stylesim.data.shards.shard_samples import read_shards
from stylesim.encoders.preprocessing import Preprocessing
from stylesim.encoders.style_encoder import Provenance, StyleEncoder


@cache
def pictures(count: int) -> tuple[Image.Image, ...]:
    """The first pictures of StyleCross' validation shards, upright RGB."""
    items = islice(iter(read_shards(embedded("data/stylecross/validation"))), 0, count * 40, 40)
    return tuple(open_image(item.image) for item in items)  # type: ignore[arg-type]


def save(image: Image.Image, file: Path, **options: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, **options)
    return file


def recompressed(image: Image.Image, quality: int = 60) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data)


class Thumbnails(StyleEncoder):
    """Grey thumbnails of 12 x 12 pixels about their mean: the same for another size or compression."""

    def __init__(self) -> None:
        super().__init__(144, Preprocessing(48, interpolation="bilinear"), Provenance("thumbnails", "none"))

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        small = F.avg_pool2d(images.mean(dim=1, keepdim=True), 4).flatten(1)
        return F.normalize(small - small.mean(dim=1, keepdim=True), dim=1)


def stage_of(tables: list[list[dict[str, Any]]], folder: Path) -> Path:
    """A finished stage with these rows in its parts."""
    stage = Stage(folder, {}, processes=1, show=False)
    assert stage.begin() is None
    for number, rows in enumerate(tables):
        stage.write_part(number, Part(conform(pa.Table.from_pylist(rows, SCHEMA)), {"images": len(rows)}))
    stage.finish({})
    return folder
