"""Compare each candidate with the next one in the ranking, on the same prompts where there are any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stylesim.evaluation.statistics import holm, independent_difference, paired_difference

FEWEST_SHARED = 5
"""Number of images with the same name from which two candidates are compared in pairs."""
RESAMPLES = 2000

Values = Mapping[str, pd.Series]
"""For each candidate, the style similarity of its images by file name."""


def name_keys(ids: Sequence[str]) -> list[str]:
    """Return what pairs images of two folders: the file name without its suffix.

    Where several images of one folder have the same, it is the path without the suffix and the folders that all share.
    """
    paths = [PurePosixPath(id) for id in ids]
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    parts = [path.parts for path in paths]
    shortest = min(map(len, parts)) - 1
    shared = next((i for i in range(shortest) if len({part[i] for part in parts}) > 1), shortest)
    keys = ["/".join([*path.parts[shared:-1], path.stem]) for path in paths]
    return keys if len(set(keys)) == len(keys) else ["/".join(part[shared:]) for part in parts]


def compare_neighbours(values: Values, order: Sequence[str], *, seed: int = 0) -> pd.DataFrame:
    """Compare each candidate with the next one.

    Args:
        values: The similarities of each candidate's images.
        order: The candidates, the best first.
        seed: Seed of the bootstrap and of the permutations.

    Returns:
        A row per pair of neighbours: `candidate, next, difference, low, high, p_value, p_corrected, paired, images`.
        Images with the same name are compared in pairs if there are at least FEWEST_SHARED of them and half of the
        smaller candidate has one; `images` counts them. Otherwise all images of both are compared, and `paired` is
        False. `p_corrected` is corrected by Holm's method for the number of pairs.
    """
    rows = []
    for name, following in pairwise(order):
        a, b = values[name], values[following]
        shared = [str(key) for key in a.index if key in b.index]
        paired = len(shared) >= max(FEWEST_SHARED, min(len(a), len(b)) / 2)
        if paired:
            result = paired_difference(_numbers(a, shared), _numbers(b, shared), seed=seed)
        else:
            result = independent_difference(_numbers(a), _numbers(b), seed=seed)
        count = len(shared) if paired else len(a) + len(b)
        rows.append((name, following, *result, paired, count))
    columns = ["candidate", "next", "difference", "low", "high", "p_value", "paired", "images"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(6, "p_corrected", holm(table["p_value"].to_numpy(dtype=np.float64)))
    return table


def shares_of_first_places(values: Values, *, seed: int = 0) -> dict[str, float]:
    """Return how often each candidate has the highest mean when images are resampled.

    The same prompts are drawn for all candidates if all have images with the same names.
    """
    rng, names = np.random.default_rng(seed), list(values)
    first = values[names[0]].index
    joint = len(first) >= FEWEST_SHARED and all(
        len(one) == len(first) and one.index.isin(first).all() for one in values.values()
    )
    drawn = _draws(rng, len(first)) if joint else None
    means = []
    for one in values.values():
        x = _numbers(one, list(first)) if joint else _numbers(one)
        means.append((_draws(rng, len(x)) if drawn is None else drawn) @ x / len(x))
    best = np.argmax(means, axis=0)
    return {name: float((best == row).mean()) for row, name in enumerate(names)}


def _numbers(values: pd.Series, names: Sequence[str] | None = None) -> Float[np.ndarray, " n"]:
    """Return the values of the images with these names, in their order; of all images by default."""
    return (values if names is None else values.reindex(names)).to_numpy(dtype=np.float64)


def _draws(rng: np.random.Generator, count: int) -> Int[np.ndarray, "r n"]:
    """Return how often each of `count` images is drawn in each resample."""
    return rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
