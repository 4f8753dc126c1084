"""Read word vectors from a text file, and put them into two clusters."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from stylesim.core.errors import DataError


def mean_vectors(file: Path, spellings: Mapping[str, Sequence[Sequence[str]]]) -> dict[str, Float[np.ndarray, " d"]]:
    """Return a unit vector for each name: the mean of the unit vectors of its words.

    Args:
        file: A text file, `.gz` or plain, with a word and its numbers, separated by spaces, in each line (GloVe), and
            possibly a first line of two numbers (word2vec's text format). It is read once, line by line.
        spellings: For each name, lists of words; the first list that has a word in the file is used, with those of its
            words that are in the file.

    Returns:
        The vectors by name, without the names of which no word is known.

    Raises:
        DataError: If the file is missing, binary or broken, or contains none of the words.
    """
    wanted = {word.encode() for lists in spellings.values() for words in lists for word in words}
    found: dict[str, np.ndarray] = {}
    for number, line in enumerate(_lines(file), start=1):
        word, _, numbers = line.strip().partition(b" ")
        if word in wanted and len(numbers.split()) > 1:  # a word2vec file begins with "<words> <dimensions>"
            found.setdefault(word.decode(), _vector(numbers, f"{file}, line {number}"))
    if len({len(vector) for vector in found.values()}) != 1:
        raise DataError(
            f"{file} has no word vectors for these names: expected a word and its numbers in each line, always the same"
            " number of them. A binary file of word2vec must be saved as text first."
        )
    means = {}
    for name, lists in spellings.items():
        words = next((known for words in lists if (known := [w for w in words if w in found])), [])
        if words and (mean := np.mean([found[word] for word in words], axis=0)).any():
            means[name] = mean / np.linalg.norm(mean)
    return means


def two_means(vectors: Sequence[ArrayLike] | Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " n"]:
    """Return which vectors are in the second of two clusters.

    This is k-means with k = 2 that starts from the two halves along the longest axis, and so is deterministic.

    Args:
        vectors: At least two vectors that differ.

    Raises:
        DataError: If there are fewer.
    """
    points = np.asarray(vectors, dtype=np.float64)
    if len(points) < 2 or (points == points[0]).all():
        raise DataError(f"Two clusters need at least two vectors that differ, got {len(points)} vectors.")
    axis = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
    second = (points - points.mean(axis=0)) @ axis > 0
    second ^= second[0]  # the sign of an axis is arbitrary: put the first vector into the first cluster
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
        raise DataError(f"The word vectors {file} cannot be read ({error}).") from error


def _vector(numbers: bytes, where: str) -> Float[np.ndarray, " d"]:
    try:
        vector = np.array(numbers.split(), dtype=np.float64)
    except ValueError as error:
        raise DataError(f"{where}: expected numbers ({error}).") from error
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
