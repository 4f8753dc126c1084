"""Word vectors from a text file, and two clusters of them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from stylesim.core.errors import StylesimError


def mean_vectors(file: Path, spellings: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Float[np.ndarray, " d"]]:
    """A unit vector for each name: the mean of the unit vectors of its words.

    `file`: a word and its numbers in each line, apart by spaces (GloVe), after a line of two numbers or not (word2vec's
    text format); `.gz` or plain. It is read once, line by line, and only the words asked for are kept. `spellings`: for
    each name, lists of words; the first list of which the file knows a word counts, by its known words. Names of which
    nothing is known are left out.

    Raises `StylesimError` where the file is missing, binary or broken, or knows none of the words.
    """
    wanted = {word.encode() for lists in spellings.values() for words in lists for word in words}
    found: dict[str, np.ndarray] = {}
    for number, line in enumerate(_lines(file), start=1):
        word, _, numbers = line.strip().partition(b" ")
        if word in wanted and len(numbers.split()) > 1:  # a word2vec file begins with "<words> <dimensions>"
            found.setdefault(word.decode(), _vector(numbers, f"{file}, line {number}"))
    if len({len(vector) for vector in found.values()}) != 1:
        raise StylesimError(
            f"{file} holds no word vectors as text for these names: a word and its numbers in each line, as many in"
            " every one. A binary file of word2vec has to be saved as text first."
        )
    means = {}
    for name, lists in spellings.items():
        words = next((known for words in lists if (known := [w for w in words if w in found])), [])
        if words and (mean := np.mean([found[word] for word in words], axis=0)).any():
            means[name] = mean / np.linalg.norm(mean)
    return means


def two_means(vectors: Sequence[ArrayLike] | Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " n"]:
    """Which vectors are in the second of two clusters: k-means with k = 2, from the halves along the longest axis.

    Deterministic; needs two vectors at least, which differ.
    """
    points = np.asarray(vectors, dtype=np.float64)
    if len(points) < 2 or (points == points[0]).all():
        raise StylesimError(
            f"{len(points)} vectors cannot be put into two clusters: at least two that differ are needed."
        )
    axis = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    second = (points - points.mean(axis=0)) @ axis > 0
    second ^= second[0]  # an axis has no sign: the first vector is in the first cluster
    while True:
        centres = np.stack([points[~second].mean(axis=0), points[second].mean(axis=0)])
        distances = ((points[:, None] - centres) ** 2).sum(axis=2)
        nearer = distances[:, 1] < distances[:, 0]
        if (nearer == second).all() or nearer.all() or not nearer.any():
            return second
        second = nearer


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            yield from stream
    except (OSError, EOFError, zlib.error) as error:
        raise StylesimError(f"The word vectors {file} cannot be read ({error}).") from error


def _vector(numbers: bytes, where: str) -> Float[np.ndarray, " d"]:
    try:
        vector = np.array(numbers.split(), dtype=np.float64)
    except ValueError as error:
        raise StylesimError(f"{where}: these are no numbers ({error}).") from error
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
