"""What a similarity says by itself, away from any ranking: gaps between labels, and pairs told apart.

A cosine of style descriptors is no calibrated score: an artist's own works can be less alike than they are to
another's (CSD+, 2026). These metrics show where.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stylesim.core.errors import StylesimError
from stylesim.evaluation.retrieval import item_values
from stylesim.retrieval.descriptors import DescriptorSet
from stylesim.retrieval.readouts import Csls, Pair, Readout
from stylesim.retrieval.search import search

Variant = Literal["prototype", "pairwise"]
PAIRS = 5_000_000
"""Pairs that are compared at most; beyond, a sample of as many, half of them of one label."""


class Verification(NamedTuple):
    """How well similarity tells pairs of one label from pairs of two."""

    auc: float
    """The chance that a pair of one label is more alike than a pair of two; ties count half."""
    same: int
    different: int
    """Pairs of either kind that were compared."""
    exact: bool
    """Whether these are all there are, and no sample."""


class Separation(NamedTuple):
    """How well a read-out's similarity separates the labels of a set."""

    labels: pd.DataFrame
    """As `discrimination_gap`, with its `variant`."""
    pairs: Verification

    @property
    def metrics(self) -> dict[str, float]:
        """The AUC, and the share of labels nearer to another than to themselves, in pairs and by prototypes."""
        gaps = self.labels.dropna(subset="gap").groupby("variant")["gap"]
        return {"auc": self.pairs.auc} | {
            f"negative_gaps_{name}": float(np.mean(gap.to_numpy() < 0)) for name, gap in gaps
        }


class SimilarityProfile(NamedTuple):
    """Quantiles of the similarity of pairs: what a score of one's own can be held against."""

    levels: Float[np.ndarray, " l"]
    same: Float[np.ndarray, " l"]
    different: Float[np.ndarray, " l"]
    exact: bool


def separation(images: DescriptorSet, relevant: str, readout: Readout | None = None) -> Separation:
    """The gap of every label that the glob `relevant` selects, and the AUC of pairs, as `readout` compares images.

    A read-out other than CSLS is fitted on these images. Images with no label, or several, are left out: a pair would
    be of one label and of two. Raises StylesimError for fewer than two labels.
    """
    values = item_values(images.items, relevant)
    single = images.select([row for row, found in enumerate(values) if len(found) == 1])
    labels = [found[0] for found in values if len(found) == 1]
    csls = readout.k if isinstance(readout, Csls) else None
    x = np.asarray(single.descriptors)
    if readout is not None and csls is None:
        x = readout(x, x, query_ids=single.ids, gallery_ids=single.ids)[1]
    gaps = [discrimination_gap(x, labels, variant=v, csls=csls).assign(variant=v) for v in get_args(Variant)]
    return Separation(pd.concat(gaps, ignore_index=True), verification_auc(x, labels, csls=csls))


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
    x, names, code = _labelled(descriptors, labels)
    facing = x
    if csls and variant == "pairwise":
        x, facing = _csls(x, csls)
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


def verification_auc(
    descriptors: Float[np.ndarray, "n d"],
    labels: Sequence[str],
    *,
    csls: int | None = None,
    pairs: int = PAIRS,
    seed: int = 0,
) -> Verification:
    """Pair verification: the area under the ROC of similarity as a sign of one label.

    Over all pairs of images where there are at most `pairs`, over a random sample of as many otherwise. `csls`: with
    the similarities of that read-out. Raises StylesimError where all pairs are of one kind.
    """
    same, different, exact = _pair_similarities(descriptors, labels, pairs, seed, csls)
    same = np.sort(same)
    below, not_above = np.searchsorted(same, different, "left"), np.searchsorted(same, different, "right")
    auc = 1 - (below + not_above).mean() / 2 / len(same)
    return Verification(float(auc), len(same), len(different), exact)


def similarity_profile(
    descriptors: Float[np.ndarray, "n d"],
    labels: Sequence[str],
    *,
    levels: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.95),
    pairs: int = PAIRS,
    seed: int = 0,
) -> SimilarityProfile:
    """How similar two images of one label are, and two of different ones; pairs as in `verification_auc`."""
    same, different, exact = _pair_similarities(descriptors, labels, pairs, seed)
    at = np.asarray(levels)
    return SimilarityProfile(at, np.quantile(same, at), np.quantile(different, at), exact)


def _csls(x: Float[np.ndarray, "n d"], k: int) -> Pair:
    """Tables whose inner product is the CSLS of two images; an image is not its own neighbour."""
    ids = [str(row) for row in range(len(x))]
    return Csls(k)(x, x, query_ids=ids, gallery_ids=ids)


def _closeness(prototypes: Float[np.ndarray, "m d"], x: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, " m"]:
    """Mean similarity of each prototype to the `k` images nearest to it."""
    return search(prototypes.astype(np.float32), x, min(k, len(x))).similarities.numpy().mean(axis=1)


def _scaled(sums: Float[np.ndarray, "m d"], sizes: Int[np.ndarray, " m"], variant: Variant) -> Float[np.ndarray, "m d"]:
    """Sums of descriptors as means, or as prototypes of unit length."""
    if variant not in get_args(Variant):
        raise StylesimError(f"The variant of the gap is 'prototype' or 'pairwise', not {variant!r}.")
    lengths = np.linalg.norm(sums, axis=1) if variant == "prototype" else sizes
    return sums / lengths.clip(min=1e-12)[:, None]


def _pair_similarities(
    descriptors: Float[np.ndarray, "n d"], labels: Sequence[str], pairs: int, seed: int, csls: int | None = None
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " t"], bool]:
    """Similarities of pairs of one label and of two, and whether these are all pairs."""
    x, _, code = _labelled(descriptors, labels)
    tables = _csls(x, csls) if csls else (x, x)
    exact = len(x) * (len(x) - 1) // 2 <= pairs
    if exact:
        parts = list(_all_pairs(*tables, code))
        same, different = (np.concatenate(kind) for kind in zip(*parts, strict=True))
    else:
        rng = np.random.default_rng(seed)
        drawn = (_same_pairs(code, pairs // 2, rng), _different_pairs(code, pairs // 2, rng))
        same, different = (_products(*tables, *kind) for kind in drawn)
    if not len(same):
        raise StylesimError("No two images have the same label, so pairs of one label cannot be told from others.")
    return same, different, exact


def _all_pairs(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], code: Int[np.ndarray, " n"]
) -> Iterator[tuple[Float[np.ndarray, " s"], Float[np.ndarray, " t"]]]:
    for start in range(0, len(x), 256):
        rows = np.arange(start, min(start + 256, len(x)))
        products = x[rows] @ y[start:].T
        later = rows[:, None] < np.arange(start, len(x))[None]
        alike = code[rows][:, None] == code[start:][None]
        yield products[later & alike], products[later & ~alike]


def _same_pairs(code: Int[np.ndarray, " n"], m: int, rng: np.random.Generator) -> Int[np.ndarray, "2 m"]:
    order, sizes = np.argsort(code, kind="stable"), np.bincount(code)
    first = np.cumsum(sizes) - sizes
    weights = sizes * (sizes - 1.0)
    if not weights.any():
        return np.empty((2, 0), dtype=np.int64)
    label = rng.choice(len(sizes), m, p=weights / weights.sum())
    a, b = rng.integers(sizes[label]), rng.integers(sizes[label] - 1)
    return order[first[label] + np.stack([a, b + (b >= a)])]


def _different_pairs(code: Int[np.ndarray, " n"], m: int, rng: np.random.Generator) -> Int[np.ndarray, "2 m"]:
    """Uniformly: a label by how many such pairs it has, one of its images, and one of all the others."""
    order, sizes = np.argsort(code, kind="stable"), np.bincount(code)
    first, weights = np.cumsum(sizes) - sizes, sizes * (len(code) - sizes).astype(float)
    label = rng.choice(len(sizes), m, p=weights / weights.sum())
    a, b = rng.integers(sizes[label]), rng.integers(len(code) - sizes[label])
    b += np.where(b >= first[label], sizes[label], 0)  # past the label's own images
    return order[np.stack([first[label] + a, b])]


def _products(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n d"], a: Int[np.ndarray, " m"], b: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    starts = range(0, len(a), 8192)
    parts = [np.einsum("nd,nd->n", x[a[i : i + 8192]], y[b[i : i + 8192]]) for i in starts]
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.float32)


def _labelled(
    descriptors: Float[np.ndarray, "n d"], labels: Sequence[str]
) -> tuple[Float[np.ndarray, "n d"], list[str], Int[np.ndarray, " n"]]:
    """Descriptors, names of labels, and each image's label by number."""
    if len(descriptors) != len(labels):
        raise StylesimError(f"There are {len(descriptors)} descriptors but {len(labels)} labels: one each is needed.")
    names, code = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    if len(names) < 2:
        raise StylesimError(f"Telling labels apart needs two or more; these images have {len(names)}.")
    return np.asarray(descriptors, dtype=np.float32), names.tolist(), code
