"""What a similarity says by itself, away from any ranking: gaps between labels, and pairs told apart.

A cosine of style descriptors is no calibrated score: an artist's own works can be less alike than they are to
another's (CSD+, 2026). These metrics show where.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stylesim.core.errors import StylesimError
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
    """Each label's similarity to itself minus that to the label it is most similar to (CSD+).

    `pairwise`: means over pairs of images. `prototype`: means over a label's images of the similarity to a label's
    prototype, its mean descriptor at unit length. An image is in neither case compared with itself: its own label's
    prototype is that of the other images. `csls`: similarities are those of that read-out with so many neighbours, of
    two images or of an image and a prototype (whose nearest images are likely to be its own).

    Returns a row per label: `label`, `images`, `own`, `best_other`, `nearest` (the name of that label), `gap`, and of a
    bootstrap over the label's images `low` and `high` (95 %) and `positive`, the share of resamples whose gap is above
    0. A label of one image has no gap: NaN. Raises StylesimError for fewer than two labels.
    """
    x, names, code = encode_labels(descriptors, labels)
    facing = x
    if csls and variant == "pairwise":
        x, facing = csls_within(x, csls)
    sums = np.stack([facing[code == label].sum(axis=0, dtype=np.float64) for label in range(len(names))])
    sizes = np.bincount(code)
    others = _scaled(sums, sizes, variant)
    # Of prototypes 2 cos(x, p) - r(p); r(x) is the same for all of them.
    hubs = _closeness(others, x, csls) if csls and variant == "prototype" else None
    rng = np.random.default_rng(seed)
    rows = []
    for label, name in enumerate(names):
        mine, theirs = x[code == label].astype(np.float64), facing[code == label]
        size = len(mine)
        own = _scaled(sums[label] - theirs, np.full(size, size - 1), variant)
        table = np.column_stack([(mine * own).sum(axis=1), mine @ others.T])  # its own column is never the best
        if hubs is not None:
            table = 2 * table - np.append(hubs[label], hubs)
        means = table.mean(axis=0)
        means[1 + label] = -np.inf
        gaps = []
        for draws in np.array_split(np.arange(resamples), max(1, resamples * size // 2_000_000)):
            resampled = rng.multinomial(size, np.full(size, 1 / size), len(draws)) @ table / size
            resampled[:, 1 + label] = -np.inf
            gaps.append(resampled[:, 0] - resampled[:, 1:].max(axis=1))
        best, gaps = int(means[1:].argmax()), np.concatenate(gaps)
        metrics = (means[0], means[1 + best], names[best], means[0] - means[1 + best])
        rows.append((name, size, *metrics, *np.quantile(gaps, [0.025, 0.975]), (gaps > 0).mean()))
    columns = ["label", "images", "own", "best_other", "nearest", "gap", "low", "high", "positive"]
    found = pd.DataFrame(rows, columns=columns)
    found.loc[found["images"] < 2, ["own", "gap", "low", "high", "positive"]] = np.nan
    return found


def _closeness(prototypes: Float[np.ndarray, "m d"], x: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, " m"]:
    """Mean similarity of each prototype to the `k` images nearest to it."""
    return search(prototypes.astype(np.float32), x, min(k, len(x))).similarities.numpy().mean(axis=1)


def _scaled(sums: Float[np.ndarray, "m d"], sizes: Int[np.ndarray, " m"], variant: Variant) -> Float[np.ndarray, "m d"]:
    """Sums of descriptors as means, or as prototypes of unit length."""
    if variant not in get_args(Variant):
        raise StylesimError(f"The variant of the gap is 'prototype' or 'pairwise', not {variant!r}.")
    lengths = np.linalg.norm(sums, axis=1) if variant == "prototype" else sizes
    return sums / lengths.clip(min=1e-12)[:, None]
