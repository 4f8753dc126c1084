"""Groups of items, and who shares one: what makes a neighbour right, or no candidate at all."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from stylesim.core.errors import StylesimError

Groups = Int[Tensor, " n"] | Bool[Tensor, "n t"]
"""Group of each item: one code (negative: in none), or a multi-hot row over t groups."""


def shares_group(ours: Groups, theirs: Groups) -> Bool[Tensor, "q g"]:
    """Where a query and a gallery item have a group in common."""
    if ours.ndim == 1:
        return (ours[:, None] == theirs[None]) & (ours >= 0)[:, None]
    return (ours.float() @ theirs.float().T) > 0


def pairs_share_group(ours: Groups, theirs: Groups) -> Bool[Tensor, " n"]:
    """Whether the two items of each pair, one of either side, have a group in common."""
    if ours.ndim == 1:
        return (ours == theirs) & (ours >= 0)
    return (ours & theirs).any(dim=1)


def paired_groups(query_groups: Groups, gallery_groups: Groups | None) -> tuple[Tensor, Tensor]:
    """Both sides as tensors. Raises StylesimError where the gallery has no groups, or groups of another kind."""
    if gallery_groups is None:
        raise StylesimError("Queries have groups but the gallery has none: give query_groups and gallery_groups.")
    ours, theirs = torch.as_tensor(query_groups), torch.as_tensor(gallery_groups)
    if ours.ndim != theirs.ndim or ours.shape[1:] != theirs.shape[1:]:
        raise StylesimError(
            f"Groups of queries {list(ours.shape)} and gallery {list(theirs.shape)} are not of one kind: "
            "either one code per item in both, or multi-hot rows over the same groups in both."
        )
    return ours, theirs
