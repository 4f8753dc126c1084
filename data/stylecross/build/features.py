"""Frozen descriptors: what rule 2 probes, and what emoji alone and emoji with icons are compared by."""

from __future__ import annotations

import numpy as np
import torch
from render import Pictures
from rich.progress import track
from rules import Features
from styles import Style

from stylesim.encoders.controls import color_histogram, frozen_lite0
from stylesim.encoders.style_encoder import StyleEncoder

BATCH = 64
Table = dict[str, tuple[float, float, float]]


@torch.inference_mode()
def describe(encoder: StyleEncoder, pictures: list[np.ndarray]) -> np.ndarray:
    """Descriptors [n d] float32 of pictures [96 96 3] uint8."""
    found = []
    for start in track(range(0, len(pictures), BATCH), f"Describe ({encoder.provenance.name})"):
        images = torch.from_numpy(np.stack(pictures[start : start + BATCH])).permute(0, 3, 1, 2)
        found.append(encoder.eval()(encoder.preprocessing.normalise(images)).numpy())
    return np.concatenate(found)


def probe_features(pictures: Pictures) -> Features:
    """896 numbers a picture: channel statistics of EfficientNet-Lite0 at four strides, and the palette."""
    keys = [(style, content) for style in pictures for content in pictures[style]]
    flat = [pictures[style][content] for style, content in keys]
    numbers = np.hstack([describe(encoder, flat) for encoder in (frozen_lite0(), color_histogram())])
    features: Features = {style: {} for style in pictures}
    for (style, content), vector in zip(keys, numbers, strict=True):
        features[style][content] = vector
    return features


def compare(members: list[tuple[Style, str, np.ndarray]]) -> dict[str, Table]:
    """What frozen encoders reach on (style, content, picture)s: on the emoji alone, and on all."""
    styles, contents, pictures = zip(*members, strict=True)
    grey = [np.repeat(luma(picture)[..., None], 3, axis=2) for picture in pictures]
    vectors = {
        encoder.provenance.name + suffix: describe(encoder, images)
        for encoder in (color_histogram(), frozen_lite0(), frozen_lite0(readout="pooled"))
        for suffix, images in (("", list(pictures)), (", grey", grey))
    }
    style, content = np.array([s.name for s in styles]), np.array(contents)
    emoji = np.array([s.emoji for s in styles])
    return {
        name: frozen_table(style[some], content[some], {e: v[some] for e, v in vectors.items()})
        for name, some in (("emoji", emoji), ("emoji and icons", emoji | True))
    }


def frozen_table(style: np.ndarray, content: np.ndarray, vectors: dict[str, np.ndarray]) -> Table:
    """{encoder: (style R@1, content R@1, share of nearest neighbours in the style)}, descriptors centred.

    A style's gallery holds other contents only, a content's other styles only, the last all other pictures.
    `chance` is the style Recall@1 of a random order.
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
    """Share of the queries with something to find whose nearest picture that is not hidden is relevant."""
    possible = (relevant & ~hidden).any(axis=1)
    nearest = np.where(hidden, -np.inf, cosine).argmax(axis=1)
    return float(relevant[np.arange(len(relevant)), nearest][possible].mean())


def luma(picture: np.ndarray) -> np.ndarray:
    """ITU-R 601 brightness [96 96] uint8."""
    return (picture @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
