"""Compare generated images with the content images of the same file names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from PIL import Image

from stylesim.core.errors import CorruptSampleError, DataError
from stylesim.core.images import ImageLike, open_image
from stylesim.core.progress import progress
from stylesim.encoders.style_encoder import StyleEncoder
from stylesim.scoring.ranking.content_measures import cas, cfsd
from stylesim.scoring.ranking.neighbour_comparison import name_keys

if TYPE_CHECKING:
    from stylesim.encoders.backbones.feature_maps import FeatureMaps
    from stylesim.encoders.backbones.lpips import Lpips

MEASURES = ("content_similarity", "cas", "cfsd", "lpips")
"""The measures of content. `content_similarity` is high for the same content, the others are distances."""
BATCH = 16
ARTFID_IMAGES = 5000
"""Smallest sample of ArtFID's published variant, which extrapolates the FID from fifteen sizes from here up."""


@dataclass(frozen=True)
class ContentMeasurer:
    """What compares an image with its content image.

    Args:
        encoder: Its cosine is the content similarity (CLIP-I, if it is CLIP).
        maps: Feature maps for CAS and CFSD.
        lpips: LPIPS, or why it is not available.
    """

    encoder: StyleEncoder
    maps: FeatureMaps
    lpips: Lpips | str

    def to(self, device: torch.device) -> ContentMeasurer:
        """Move the networks to a device."""
        self.encoder.to(device)
        self.maps.to(device)
        if not isinstance(self.lpips, str):
            self.lpips.to(device)
        return self

    @property
    def names(self) -> dict[str, str]:
        """The network behind each measure that is available."""
        names = {"content_similarity": self.encoder.provenance.name, "cas": self.maps.name, "cfsd": self.maps.name}
        return names if isinstance(self.lpips, str) else names | {"lpips": self.lpips.name}

    def measure(
        self, images: Sequence[Image.Image], contents: Sequence[Image.Image]
    ) -> dict[str, Float[np.ndarray, " b"]]:
        """Return each measure of each pair, and as `<measure>_mismatched` that of the image and the next content."""
        encode, prepare = self.encoder.encode, self.maps.preprocessing
        similarity = _pairs(lambda a, b: (a * b).sum(1), encode(images), encode(contents))
        device = next(self.maps.parameters()).device
        sides = [self.maps(torch.stack([prepare(one) for one in side]).to(device)) for side in (images, contents)]
        results = {"content_similarity": similarity}
        results["cas"] = _pairs(cas, sides[0][0], sides[1][0])
        results["cfsd"] = _pairs(cfsd, sides[0][1], sides[1][1])
        if not isinstance(self.lpips, str):
            prepare = self.lpips.preprocessing
            pixels = [torch.stack([prepare(one) for one in side]).to(device) for side in (images, contents)]
            results["lpips"] = _pairs(self.lpips, *pixels)
        return {
            f"{name}{suffix}": values
            for name, both in results.items()
            for suffix, values in zip(("", "_mismatched"), both, strict=True)
        }


@torch.no_grad()
def compare_with_content(
    measurer: ContentMeasurer,
    images: Mapping[str, ImageLike],
    contents: Mapping[str, ImageLike],
    *,
    name: str = "candidate",
) -> pd.DataFrame:
    """Compare images with the content images that have the same file names.

    Args:
        measurer: The measures.
        images: Generated images by id.
        contents: Content images by id.
        name: The candidate, for messages.

    Returns:
        A row per pair: `image, content`, and for each measure its value and the same for a mismatched pair, which shows
        what the measure is for other content. Pairs of which an image cannot be read are left out.

    Raises:
        DataError: If no image has the name of a content image.
    """
    content_of = dict(zip(name_keys(list(contents)), contents, strict=True))
    keys = dict(zip(name_keys(list(images)), images, strict=True))
    pairs = [(id, content_of[key]) for key, id in keys.items() if key in content_of]
    if not pairs:
        raise DataError(
            f"No image of {name} has the file name of a content image: expected names such as {next(iter(content_of))},"
            f" got {next(iter(keys), 'no image')}."
        )
    tables = []
    with progress(f"comparing the content of {name}", len(pairs)) as advance:
        for start in range(0, len(pairs), BATCH):
            batch = pairs[start : start + BATCH]
            opened = [(pair, *sides) for pair in batch if (sides := _open(images[pair[0]], contents[pair[1]]))]
            if opened:
                ids, first, second = zip(*opened, strict=True)
                measured = measurer.measure(first, second)
                tables.append(pd.DataFrame(ids, columns=["image", "content"]).assign(**measured))
            advance(len(batch))
    if not tables:
        raise DataError(f"None of the {len(pairs)} pairs of an image of {name} and its content could be read.")
    return pd.concat(tables, ignore_index=True)


def artfid_note(pairs: Sequence[int], works: int) -> str:
    """Say why there is no ArtFID.

    Args:
        pairs: Number of images of each candidate.
        works: Number of reference works.
    """
    if (fewest := min([*pairs, works])) <= ARTFID_IMAGES:
        return (
            f"ArtFID was not computed: it extrapolates the FID from samples of {ARTFID_IMAGES:,} images upwards, and"
            f" the smallest set has {fewest:,}. Below that it depends on the number of images more than on their style."
        )
    return (
        "ArtFID was not computed: its FID needs an Inception v3 trained on art (matthias-wright/art_inception), which"
        " stylesim does not include. The package art-fid computes it."
    )


def _open(*sources: ImageLike) -> list[Image.Image] | None:
    try:
        return [open_image(source) for source in sources]
    except CorruptSampleError:
        return None


def _pairs(measure: Callable[[Any, Any], torch.Tensor], images: torch.Tensor, contents: torch.Tensor) -> list[Any]:
    """Return a measure of the matching pairs and of mismatched ones; NaN for those of a single image."""
    matching = measure(images, contents).cpu().double().numpy()
    if len(contents) < 2:
        return [matching, np.full(len(matching), np.nan)]
    return [matching, measure(images, contents.roll(1, dims=0)).cpu().double().numpy()]
