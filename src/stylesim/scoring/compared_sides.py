"""Prepare two sets of descriptors for comparison: unit vectors, labels, and neighbourhoods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from stylesim.evaluation.labels import label_values
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.readouts import Readout
from stylesim.scoring.comparable_sets import check_comparable
from stylesim.scoring.gss import neighbourhood_similarities

LabelRows = Mapping[str, Int[np.ndarray, " n"]]
"""The rows of a set that have each label, ordered by label."""


class Side(NamedTuple):
    """One of the two sets, prepared for comparison with the other."""

    images: DescriptorSet
    vectors: Float[np.ndarray, "n d"]
    """Unit vectors."""
    rows_of: LabelRows
    near: Float[np.ndarray, " n"]
    """Mean similarity to the k nearest images of the other side."""


def compare_sides(
    generated: DescriptorSet,
    reference: DescriptorSet,
    *,
    label: str,
    readout: Readout | None,
    csls_k: int,
    copies: Int[np.ndarray, "c 2"],
) -> tuple[Side, Side]:
    """Prepare generated images and works for comparison with each other.

    Args:
        generated: The generated images.
        reference: The works.
        label: Glob that selects the tags used as labels.
        readout: Transformation of the descriptors, with the works as its gallery.
        csls_k: Number of images in a neighbourhood.
        copies: Rows of generated images and of works that are no neighbours of each other.

    Raises:
        DataError: If the sets were embedded by different encoders, or only one of them without colour.
    """
    check_comparable(generated, reference, name="generated images")
    vectors = tuple(unit_rows(images.descriptors) for images in (generated, reference))
    vectors = readout(*vectors) if readout else vectors
    near = neighbourhood_similarities(vectors[0], vectors[1], csls_k, copies)
    gen, ref = (
        Side(images, unit, rows_by_label(images, label), similarities)
        for images, unit, similarities in zip((generated, reference), vectors, near, strict=True)
    )
    return gen, ref


def unmatched_labels(gen: Side, ref: Side, label: str) -> list[str]:
    """Return the labels of generated images that no work has, and `(none)` if an image has no label."""
    has_unlabelled = not all(label_values(gen.images.items, label))
    return sorted(gen.rows_of.keys() - ref.rows_of.keys()) + ["(none)"] * has_unlabelled


def copies_within(copies: Int[np.ndarray, "c 2"], rows: np.ndarray, works: np.ndarray) -> Int[np.ndarray, "e 2"]:
    """Return the copies among some of the rows of both sides, as positions within these (rows are ascending)."""
    inside = copies[np.isin(copies[:, 0], rows) & np.isin(copies[:, 1], works)]
    return np.stack([np.searchsorted(rows, inside[:, 0]), np.searchsorted(works, inside[:, 1])], axis=1)


def unit_rows(descriptors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Return the descriptors, each divided by its length."""
    return descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)


def rows_by_label(images: DescriptorSet, label: str) -> LabelRows:
    """Return the rows of a set that have each label; `label` is a glob that selects the tags used as labels."""
    rows_of: dict[str, list[int]] = {}
    for row, values in enumerate(label_values(images.items, label)):
        for value in values:
            rows_of.setdefault(value, []).append(row)
    return {name: np.array(rows) for name, rows in sorted(rows_of.items())}
