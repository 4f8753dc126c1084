"""Groups of images: images that share a group are relevant to each other, or excluded from each other's results."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stylesim.core.errors import DataError

Groups = Int[Tensor, " n"] | Bool[Tensor, "n t"]
"""The groups of n images: one code each (negative for no group), or multi-hot rows over t groups."""


def shares_group(query: Groups, gallery: Groups) -> Bool[Tensor, "q g"]:
    """Return whether each query shares a group with each gallery image."""
    if query.ndim == 1:
        return (query[:, None] == gallery[None]) & (query >= 0)[:, None]
    return (query.float() @ gallery.float().T) > 0


def pairs_share_group(left: Groups, right: Groups) -> Bool[Tensor, " n"]:
    """Return whether the i-th images of both sides share a group, for each i."""
    if left.ndim == 1:
        return (left == right) & (left >= 0)
    return (left & right).any(dim=1)


def paired_groups(query_groups: Groups, gallery_groups: Groups | None) -> tuple[Tensor, Tensor]:
    """Return the groups of both sides as tensors.

    Raises:
        DataError: If the gallery has no groups, or its groups are of another kind or number than those of the queries.
    """
    if gallery_groups is None:
        raise DataError("query_groups is given but gallery_groups is not. Give both or neither.")
    query, gallery = torch.as_tensor(query_groups), torch.as_tensor(gallery_groups)
    if query.ndim != gallery.ndim or query.shape[1:] != gallery.shape[1:]:
        raise DataError(
            f"query_groups {list(query.shape)} and gallery_groups {list(gallery.shape)} must be of the same kind: "
            "one code per image, or multi-hot rows over the same groups."
        )
    return query, gallery
