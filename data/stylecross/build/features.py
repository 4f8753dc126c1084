"""Frozen descriptors: for the probe of rule 4, and to compare the emoji alone with emoji and icons."""

from __future__ import annotations

import numpy as np
import torch
from render import Rasters
from rich.progress import track
from rules import Features
from styles import Style

from stylesim.encoders.controls import color_histogram, frozen_lite0
from stylesim.encoders.style_encoder import StyleEncoder

BATCH = 64
Table = dict[str, tuple[float, float, float]]


@torch.inference_mode()
def describe(encoder: StyleEncoder, rasters: list[np.ndarray]) -> np.ndarray:
    """Return descriptors [n d] float32 of images [96 96 3] uint8."""
    found = []
    for start in track(range(0, len(rasters), BATCH), f"Describe ({encoder.provenance.name})"):
        images = torch.from_numpy(np.stack(rasters[start : start + BATCH])).permute(0, 3, 1, 2)
        found.append(encoder.eval()(encoder.preprocessing.normalise(images)).numpy())
    return np.concatenate(found)


def probe_features(rasters: Rasters) -> Features:
    """Return 896 numbers for each image: channel statistics of EfficientNet-Lite0 at four strides, and the palette."""
    keys = [(style, content) for style in rasters for content in rasters[style]]
    flat = [rasters[style][content] for style, content in keys]
    numbers = np.hstack([describe(encoder, flat) for encoder in (frozen_lite0(), color_histogram())])
    features: Features = {style: {} for style in rasters}
    for (style, content), vector in zip(keys, numbers, strict=True):
        features[style][content] = vector
    return features


def compare(members: list[tuple[Style, str, np.ndarray]]) -> dict[str, Table]:
    """Evaluate frozen encoders on (style, content, image)s: on the emoji alone, and on all."""
    styles, contents, rasters = zip(*members, strict=True)
    grey = [np.repeat(luma(raster)[..., None], 3, axis=2) for raster in rasters]
    vectors = {
        encoder.provenance.name + suffix: describe(encoder, images)
        for encoder in (color_histogram(), frozen_lite0(), frozen_lite0(readout="pooled"))
        for suffix, images in (("", list(rasters)), (", grey", grey))
    }
    style, content = np.array([s.name for s in styles]), np.array(contents)
    emoji = np.array([s.emoji for s in styles])
    return {
        name: frozen_table(style[some], content[some], {e: v[some] for e, v in vectors.items()})
        for name, some in (("emoji", emoji), ("emoji and icons", emoji | True))
    }


def frozen_table(style: np.ndarray, content: np.ndarray, vectors: dict[str, np.ndarray]) -> Table:
    """Return {encoder: (style R@1, content R@1, share of nearest neighbours in the style)}, of centred descriptors.

    The gallery of a style query has other contents only, that of a content query other styles only; the last number
    searches all other images. `chance` is the style Recall@1 of a random order.
    """
    same_style, same_content = style[:, None] == style, content[:, None] == content
    own = np.eye(len(style), dtype=bool)
    table = {"chance": (float((same_style & ~same_content).sum() / (~same_content).sum()), np.nan, np.nan)}
    for encoder, found in vectors.items():
        centred = found - found.mean(axis=0)
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        cosine = centred @ centred.T
        table[encoder] = (
            recall(cosine, same_style, same_content),
            recall(cosine, same_content, same_style),
            recall(cosine, same_style, own),
        )
    return table


def recall(cosine: np.ndarray, relevant: np.ndarray, hidden: np.ndarray) -> float:
    """Return the share of queries whose nearest image that is not hidden is relevant, among those that have one."""
    possible = (relevant & ~hidden).any(axis=1)
    nearest = np.where(hidden, -np.inf, cosine).argmax(axis=1)
    return float(relevant[np.arange(len(relevant)), nearest][possible].mean())


def luma(raster: np.ndarray) -> np.ndarray:
    """Return the ITU-R 601 luma [96 96] uint8."""
    return (raster @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
