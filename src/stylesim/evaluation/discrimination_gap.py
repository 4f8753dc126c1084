"""The discrimination gap: each label's similarity to itself minus its similarity to the most similar other label.

A cosine of style descriptors is not a calibrated score: an artist's own works can be less similar to each other than
to those of another artist (CSD+, arXiv 2605.09030). The gap shows for which labels that happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stylesim.core.errors import ConfigError
from stylesim.evaluation.labels import encode_labels
from stylesim.retrieval.exact_search import search
from stylesim.retrieval.readouts import csls_within

Variant = Literal["prototype", "pairwise"]


def discrimination_gap(
    descriptors: Float[np.ndarray, "n d"],
    labels: Sequence[str],
    *,
    variant: Variant = "prototype",
    csls: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compute each label's discrimination gap, with a bootstrap over its images (CSD+, arXiv 2605.09030).

    Args:
        descriptors: One unit vector per image.
        labels: One label per image.
        variant: "pairwise": means over pairs of images. "prototype": means over a label's images of the similarity
            to a label's prototype, its mean descriptor at unit length. An image is never compared with itself: the
            prototype of its own label is computed from the other images of the label.
        csls: If given, similarities are those of CSLS with this number of neighbours, between two images or between
            an image and a prototype (whose nearest images are usually those of its own label).
        resamples: The number of bootstrap resamples of a label's images.
        seed: Seed of the bootstrap.

    Returns:
        One row per label: `label`, `images`, `own`, `best_other`, `nearest` (the name of that other label), `gap`,
        `low` and `high` (95 % interval of the gap), and `positive`, the share of resamples with a gap above 0. A
        label with one image has no gap: NaN.

    Raises:
        DataError: If there are fewer than two labels, or not one label per descriptor.
        ConfigError: If `variant` is unknown.
    """
    if variant not in get_args(Variant):
        raise ConfigError(f"The variant of the gap must be 'prototype' or 'pairwise', got {variant!r}.")
    x, names, code = encode_labels(descriptors, labels)
    y = x  # the vectors that x is compared with
    if csls and variant == "pairwise":
        x, y = csls_within(x, csls)
    sums = np.stack([y[code == label].sum(axis=0, dtype=np.float64) for label in range(len(names))])
    sizes = np.bincount(code)
    others = _scaled(sums, sizes, variant)
    # The CSLS of an image x and a prototype p is 2 cos(x, p) - near(x) - near(p), and near(x) cancels in the gap.
    near = _mean_neighbour_similarity(others, x, csls) if csls and variant == "prototype" else None
    rng = np.random.default_rng(seed)
    rows = []
    for label, name in enumerate(names):
        own_x, own_y = x[code == label].astype(np.float64), y[code == label]
        size = len(own_x)
        leave_one_out = _scaled(sums[label] - own_y, np.full(size, size - 1), variant)
        # Column 0: similarity to the own label without the image itself. Then one column per label; the own label's
        # column is set to -inf below, so that it is never the best other label.
        table = np.column_stack([(own_x * leave_one_out).sum(axis=1), own_x @ others.T])
        if near is not None:
            table = 2 * table - np.append(near[label], near)
        means = table.mean(axis=0)
        means[1 + label] = -np.inf
        gaps = []
        for draws in np.array_split(np.arange(resamples), max(1, resamples * size // 2_000_000)):
            resampled = rng.multinomial(size, np.full(size, 1 / size), len(draws)) @ table / size
            resampled[:, 1 + label] = -np.inf
            gaps.append(resampled[:, 0] - resampled[:, 1:].max(axis=1))
        best, gaps = int(means[1:].argmax()), np.concatenate(gaps)
        values = (means[0], means[1 + best], names[best], means[0] - means[1 + best])
        rows.append((name, size, *values, *np.quantile(gaps, [0.025, 0.975]), (gaps > 0).mean()))
    columns = ["label", "images", "own", "best_other", "nearest", "gap", "low", "high", "positive"]
    table = pd.DataFrame(rows, columns=columns)
    table.loc[table["images"] < 2, ["own", "gap", "low", "high", "positive"]] = np.nan
    return table


def _mean_neighbour_similarity(
    prototypes: Float[np.ndarray, "m d"], x: Float[np.ndarray, "n d"], k: int
) -> Float[np.ndarray, " m"]:
    """Return the mean similarity of each prototype and its `k` nearest images."""
    return search(prototypes.astype(np.float32), x, min(k, len(x))).similarities.numpy().mean(axis=1)


def _scaled(sums: Float[np.ndarray, "m d"], sizes: Int[np.ndarray, " m"], variant: Variant) -> Float[np.ndarray, "m d"]:
    """Turn sums of descriptors into means, or into prototypes of unit length."""
    lengths = np.linalg.norm(sums, axis=1) if variant == "prototype" else sizes
    return sums / lengths.clip(min=1e-12)[:, None]
