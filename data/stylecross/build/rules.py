"""The rules that choose styles which can be distinguished and contents which differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from render import Rasters
from rich.progress import track
from sources import rank

REDRAW = 0.70  # correlation of two styles' images of the same contents, from which one redraws the other
INDISTINCT = 0.92  # balanced accuracy on other contents, below which two styles cannot be distinguished
TWINS = 0.90  # correlation of two contents' images in the same styles, from which they are one content
MIN_STYLES = 2  # styles that must have drawn two contents to compare them
COMMON = 40  # contents that two styles must share to compare them
LEAST = 215  # contents that a style must have, so that about 150 are trained on


@dataclass(frozen=True)
class Verdict:
    """A pair of styles, what was measured, and the style that was dropped (None: neither)."""

    first: str
    second: str
    measured: float
    dropped: str | None = None


Features = dict[str, dict[str, np.ndarray]]  # by style and content


def redraws(rasters: Rasters) -> list[Verdict]:
    """Apply rule 1: of two styles whose colour images of the same contents nearly agree, drop the smaller."""
    thumbnails = {style: thumbnail(drawn, colour=True) for style, drawn in rasters.items()}
    measured = {}
    for a, b in combinations(rasters, 2):
        common = sorted(thumbnails[a].keys() & thumbnails[b].keys())
        if len(common) >= COMMON:
            measured[a, b] = -float(np.mean([thumbnails[a][c] @ thumbnails[b][c] for c in common]))
    judged = judge(rasters, measured, lambda value: -value >= REDRAW)
    return [Verdict(v.first, v.second, -v.measured, v.dropped) for v in judged]


def indistinct(rasters: Rasters, features: Features) -> list[Verdict]:
    """Apply rule 4: of two styles that a linear probe on frozen features cannot distinguish, drop the smaller.

    The probe is fitted on each half of the contents and tested on the other; the mean counts.
    """
    measured = {}
    for a, b in track(list(combinations(rasters, 2)), "Probe"):
        contents = [*rasters[a], *rasters[b]]
        half = np.array([int(rank(content), 16) % 2 == 0 for content in contents])
        x = np.stack([*(features[a][c] for c in rasters[a]), *(features[b][c] for c in rasters[b])])
        y = np.repeat([1.0, -1.0], [len(rasters[a]), len(rasters[b])])
        measured[a, b] = (probe(x, y, half) + probe(x, y, ~half)) / 2
    return judge(rasters, measured, lambda value: value < INDISTINCT)


def judge(
    rasters: Rasters, measured: dict[tuple[str, str], float], breaks_rule: Callable[[float], bool]
) -> list[Verdict]:
    """Return a verdict for each pair, the smallest value first; a pair that has lost one style loses no other.

    Of a pair that breaks the rule, the style with fewer images is dropped, at a tie the later one in the table.
    """
    order = {style: number for number, style in enumerate(rasters)}
    verdicts, gone = [], set()
    for (a, b), value in sorted(measured.items(), key=lambda item: item[1]):
        dropped = None
        if breaks_rule(value) and not {a, b} & gone:
            dropped = max((a, b), key=lambda style: (-len(rasters[style]), order[style]))
            gone.add(dropped)
        verdicts.append(Verdict(a, b, value, dropped))
    return verdicts


def twins(rasters: Rasters) -> dict[str, str]:
    """Apply rule 2: return {dropped content: the one that it repeats}, such as clock faces and coloured hearts.

    Two contents are one if the styles that draw both (two or more) draw nearly the same image, apart from colour. The
    one that more styles draw is kept.
    """
    contents = sorted({content for drawn in rasters.values() for content in drawn}, key=rank)
    number = {content: i for i, content in enumerate(contents)}
    total = np.zeros((len(contents), len(contents)), dtype=np.float32)
    styles = np.zeros_like(total)
    for drawn in rasters.values():
        grey = thumbnail(drawn, colour=False)
        index = np.array([number[content] for content in grey])
        vectors = np.stack(list(grey.values()))
        total[np.ix_(index, index)] += vectors @ vectors.T
        styles[np.ix_(index, index)] += 1
    counts = np.diag(styles)
    doubled: dict[str, str] = {}
    for i, j in np.argwhere(np.triu((total >= TWINS * styles) & (styles >= MIN_STYLES), k=1)):
        kept, lost = sorted((i, j), key=lambda k: (-counts[k], rank(contents[k])))
        if contents[kept] not in doubled:
            doubled.setdefault(contents[lost], contents[kept])
    return doubled


def thumbnail(rasters: dict[str, np.ndarray], colour: bool) -> dict[str, np.ndarray]:
    """Return each image as 32 x 32 means of its pixels, in colour or grey, with zero mean and unit length."""
    vectors = {}
    for content, raster in rasters.items():
        small = raster.reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
        vector = (small if colour else small.mean(axis=2)).ravel()
        vector = vector - vector.mean()
        vectors[content] = vector / max(float(np.linalg.norm(vector)), 1e-6)
    return vectors


def probe(x: np.ndarray, y: np.ndarray, fit: np.ndarray) -> float:
    """Return the balanced accuracy outside `fit` [n] of a ridge regression of y [n] (-1 or 1) on x [n d] inside it.

    Features are standardised, classes have equal weight, and the penalty is the number of images fitted.
    """
    x = (x - x[fit].mean(axis=0)) / (x[fit].std(axis=0) + 1e-6)
    x = np.hstack([x, np.ones((len(x), 1))])
    inside, labels = x[fit], y[fit]
    weighted = inside / np.where(labels > 0, (labels > 0).mean(), (labels < 0).mean())[:, None] / 2
    coefficients = np.linalg.solve(weighted.T @ inside + fit.sum() * np.eye(x.shape[1]), weighted.T @ labels)
    right = np.sign(x[~fit] @ coefficients) == y[~fit]
    return float((right[y[~fit] > 0].mean() + right[y[~fit] < 0].mean()) / 2)
