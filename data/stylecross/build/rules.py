"""The measured rules that leave styles which can be told apart, and contents which differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from render import Pictures
from rich.progress import track
from sources import rank

REDRAW = 0.70  # correlation of two styles' pictures of the same contents, from which one redraws the other
INDISTINCT = 0.92  # balanced accuracy on other contents, under which two styles cannot be told apart
TWINS = 0.90  # correlation of two contents' pictures by the same hands, from which they are one content
HANDS = 2  # that must have drawn both, or nothing is said of them
COMMON = 40  # contents that two styles share, or nothing is said of their redrawing each other
LEAST = 215  # contents of a style, so that about 150 are trained on


@dataclass(frozen=True)
class Verdict:
    """A pair of styles, what was measured of it, and the one that was dropped for it (None: neither)."""

    first: str
    second: str
    measured: float
    dropped: str | None = None


Features = dict[str, dict[str, np.ndarray]]  # by style and content


def redraws(pictures: Pictures) -> list[Verdict]:
    """Rule 1: of two styles whose colour pictures of the same contents nearly agree, the smaller goes."""
    thumbnails = {style: thumbnail(drawn, colour=True) for style, drawn in pictures.items()}
    measured = {}
    for a, b in combinations(pictures, 2):
        common = sorted(thumbnails[a].keys() & thumbnails[b].keys())
        if len(common) >= COMMON:
            measured[a, b] = -float(np.mean([thumbnails[a][c] @ thumbnails[b][c] for c in common]))
    judged = judge(pictures, measured, lambda value: -value >= REDRAW)
    return [Verdict(v.first, v.second, -v.measured, v.dropped) for v in judged]


def indistinct(pictures: Pictures, features: Features) -> list[Verdict]:
    """Rule 4: of two styles that a linear probe on frozen features cannot tell apart, the smaller goes.

    The probe is fitted on half of the contents and tested on the other half, both ways; the mean counts.
    """
    measured = {}
    for a, b in track(list(combinations(pictures, 2)), "Probe"):
        contents = [*pictures[a], *pictures[b]]
        half = np.array([int(rank(content), 16) % 2 == 0 for content in contents])
        x = np.stack([*(features[a][c] for c in pictures[a]), *(features[b][c] for c in pictures[b])])
        y = np.repeat([1.0, -1.0], [len(pictures[a]), len(pictures[b])])
        measured[a, b] = (probe(x, y, half) + probe(x, y, ~half)) / 2
    return judge(pictures, measured, lambda value: value < INDISTINCT)


def judge(pictures: Pictures, measured: dict[tuple[str, str], float], guilty: Callable[[float], bool]) -> list[Verdict]:
    """One verdict a pair, the smallest value first; a pair that has already lost one style loses no other.

    Of a guilty pair the style with fewer pictures goes, at a tie the one that stands later in the table.
    """
    order = {style: number for number, style in enumerate(pictures)}
    verdicts, gone = [], set()
    for (a, b), value in sorted(measured.items(), key=lambda item: item[1]):
        dropped = None
        if guilty(value) and not {a, b} & gone:
            dropped = max((a, b), key=lambda style: (-len(pictures[style]), order[style]))
            gone.add(dropped)
        verdicts.append(Verdict(a, b, value, dropped))
    return verdicts


def twins(pictures: Pictures) -> dict[str, str]:
    """Rule 2: {dropped content: the one that it doubles}, like clock faces and coloured hearts.

    Two contents are one when the hands that drew both (two at least) drew nearly the same picture, colour
    aside. The one that more styles have stays.
    """
    contents = sorted({content for drawn in pictures.values() for content in drawn}, key=rank)
    number = {content: i for i, content in enumerate(contents)}
    total = np.zeros((len(contents), len(contents)), dtype=np.float32)
    hands = np.zeros_like(total)
    for drawn in pictures.values():
        grey = thumbnail(drawn, colour=False)
        index = np.array([number[content] for content in grey])
        vectors = np.stack(list(grey.values()))
        total[np.ix_(index, index)] += vectors @ vectors.T
        hands[np.ix_(index, index)] += 1
    counts = np.diag(hands)
    doubled: dict[str, str] = {}
    for i, j in np.argwhere(np.triu((total >= TWINS * hands) & (hands >= HANDS), k=1)):
        kept, lost = sorted((i, j), key=lambda k: (-counts[k], rank(contents[k])))
        if contents[kept] not in doubled:
            doubled.setdefault(contents[lost], contents[kept])
    return doubled


def thumbnail(pictures: dict[str, np.ndarray], colour: bool) -> dict[str, np.ndarray]:
    """Each picture as 32 x 32 means of its pixels, in colour or grey: of zero mean and unit length."""
    vectors = {}
    for content, picture in pictures.items():
        small = picture.reshape(32, 3, 32, 3, 3).mean(axis=(1, 3))
        vector = (small if colour else small.mean(axis=2)).ravel()
        vector = vector - vector.mean()
        vectors[content] = vector / max(float(np.linalg.norm(vector)), 1e-6)
    return vectors


def probe(x: np.ndarray, y: np.ndarray, fit: np.ndarray) -> float:
    """Balanced accuracy outside `fit` [n] of a ridge regression of y [n], in -1 and 1, on x [n d] inside it.

    Features are standardised, classes weighted alike, and the penalty is the number of pictures fitted.
    """
    x = (x - x[fit].mean(axis=0)) / (x[fit].std(axis=0) + 1e-6)
    x = np.hstack([x, np.ones((len(x), 1))])
    inside, labels = x[fit], y[fit]
    weighted = inside / np.where(labels > 0, (labels > 0).mean(), (labels < 0).mean())[:, None] / 2
    coefficients = np.linalg.solve(weighted.T @ inside + fit.sum() * np.eye(x.shape[1]), weighted.T @ labels)
    right = np.sign(x[~fit] @ coefficients) == y[~fit]
    return float((right[y[~fit] > 0].mean() + right[y[~fit] < 0].mean()) / 2)
