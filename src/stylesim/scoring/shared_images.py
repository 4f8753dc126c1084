"""Find the images that stand on both sides of a comparison, by the content of their files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np
from jaxtyping import Int

from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.exact_search import search
from stylesim.scoring.comparable_sets import check_comparable

CANDIDATE = 0.999
"""Cosine above which two descriptors may be of one file: half precision and other batches change a few digits."""
SAME = 1 - 1e-6
"""Cosine above which they count as one image where the files can no longer be read."""
MOST_COPIES = 32
"""Works that are looked at for each generated image."""

FindDigests = Callable[[Collection[str]], Mapping[str, str]]
"""Returns the digests of the files of the images with the given ids, as far as they can be read."""


def find_copies(
    generated: DescriptorSet, reference: DescriptorSet, digests: Mapping[str, FindDigests]
) -> Int[np.ndarray, "c 2"]:
    """Find the generated images that are among the works as well.

    Only images whose descriptors are nearly equal are read again.

    Args:
        generated: The generated images.
        reference: The works, embedded by the same encoder.
        digests: How to read the digests of either set, `generated` and `reference`.

    Returns:
        Rows of generated images and of works that are the same image.

    Raises:
        DataError: If the two sets were embedded in different ways.
    """
    check_comparable(generated, reference, name="generated images")
    sides = {"generated": generated, "reference": reference}
    g, r = (s.descriptors / np.linalg.norm(s.descriptors, axis=1, keepdims=True) for s in sides.values())
    nearest = search(g, r, min(MOST_COPIES, len(r)))
    rows, ranks = np.nonzero(nearest.similarities.numpy() > CANDIDATE)
    candidates = np.stack([rows, nearest.indices.numpy()[rows, ranks]], axis=1)
    similarities = nearest.similarities.numpy()[rows, ranks]
    if not len(candidates):
        return candidates
    columns = zip(sides.items(), candidates.T, strict=True)
    ids = {name: images.items["id"].to_numpy()[column] for (name, images), column in columns}
    digest = {name: digests[name](set(ids[name])) for name in sides}
    of_generated, of_reference = ([digest[name].get(id) for id in ids[name]] for name in sides)
    same = [
        similarity > SAME if a is None or b is None else a == b
        for a, b, similarity in zip(of_generated, of_reference, similarities, strict=True)
    ]
    return candidates[np.array(same, dtype=bool)]
