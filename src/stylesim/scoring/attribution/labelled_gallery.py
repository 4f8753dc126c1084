"""The works of a gallery grouped by label, with the neighbourhoods that CSLS needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from stylesim.core.errors import DataError
from stylesim.evaluation.labels import label_values
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.exact_search import search
from stylesim.retrieval.groups import Groups

SPARE = 4
"""Each list of neighbours has this times k works, so that k remain when some works are left out."""


@dataclass(frozen=True)
class Neighbourhoods:
    """The nearest works of every work of a gallery, from which r(w) of CSLS is taken.

    r(w) is the mean cosine of a work and its k nearest works (Conneau et al. 2018). If works are left out of the
    gallery, it is the mean over the k nearest of the remaining ones.
    """

    vectors: Float[np.ndarray, "n d"]
    indices: Int[np.ndarray, "n t"]
    """Rows of the nearest works, the nearest first; -1 where there are fewer."""
    similarities: Float[np.ndarray, "n t"]
    k: int
    labels: Bool[np.ndarray, "n l"] | None
    """The labels of each work, if works that share one are no neighbours; None if all works may be neighbours."""

    @cached_property
    def means(self) -> Float[np.ndarray, " n"]:
        """r(w) for each work; 0 for a work that has no neighbour."""
        return self._means(self.indices >= 0, self.similarities)

    def means_without(self, left_out: Int[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
        """Return r(w) for each work in a gallery without these works, whose own values have no meaning."""
        owners, starts = self._listed_in
        affected = np.unique(np.concatenate([owners[starts[row] : starts[row + 1]] for row in left_out]))
        affected = affected[~np.isin(affected, left_out)]
        means = self.means.copy()
        if not len(affected):
            return means
        gone = np.zeros(len(self.indices) + 1, dtype=bool)  # the last entry stands for index -1
        gone[left_out], gone[-1] = True, True
        usable = ~gone[self.indices[affected]]
        means[affected] = self._means(usable, self.similarities[affected])
        # If a list ends before k neighbours are left, others that are not listed take their places.
        short = affected[(usable.sum(axis=1) < self.k) & (self.indices[affected, -1] >= 0)]
        if len(short):
            means[short] = self._means_of_all(short, gone[:-1])
        return means

    def _means_of_all(self, rows: Int[np.ndarray, " m"], gone: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " m"]:
        """r(w) of these works from their cosines to all works."""
        cosines = self.vectors[rows] @ self.vectors.T
        cosines[:, gone] = -np.inf
        cosines[np.arange(len(rows)), rows] = -np.inf
        if self.labels is not None:
            shared = self.labels[rows].astype(np.float32) @ self.labels.T.astype(np.float32) > 0
            cosines[shared] = -np.inf
        near = -np.sort(-np.partition(cosines, cosines.shape[1] - self.k, axis=1)[:, -self.k :], axis=1)
        return self._means(np.isfinite(near), near)

    def _means(self, usable: Bool[np.ndarray, "m t"], similarities: Float[np.ndarray, "m t"]) -> np.ndarray:
        first = usable & (usable.cumsum(axis=1) <= self.k)
        return np.where(first, similarities, 0).sum(axis=1) / first.sum(axis=1).clip(min=1)

    @cached_property
    def _listed_in(self) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " n1"]]:
        """For each work, the works that have it among their k nearest: one array, and where each part starts."""
        count = len(self.indices)
        near = self.indices[:, : self.k]
        owner = np.repeat(np.arange(count), near.shape[1])[near.ravel() >= 0]
        listed = near.ravel()[near.ravel() >= 0]
        order = np.argsort(listed, kind="stable")
        return owner[order], np.searchsorted(listed[order], np.arange(count + 1))


@dataclass(frozen=True)
class LabelledGallery:
    """The works that have a label, in columns grouped by label. A work with two labels has two columns."""

    vectors: Float[np.ndarray, "n d"]
    """Unit vectors, one per work."""
    ids: list[str]
    contents: list[str | None]
    """What each work shows, where that is known."""
    names: list[str]
    """The labels, ordered."""
    works: Int[np.ndarray, " c"]
    """The work of each column."""
    starts: Int[np.ndarray, " l"]
    """The first column of each label."""
    k: int
    """Neighbours in a neighbourhood of CSLS."""
    unlabelled: int
    """Number of images of the gallery that have no label and were left out."""

    @cached_property
    def sizes(self) -> Int[np.ndarray, " l"]:
        """The number of works of each label."""
        return np.diff(np.append(self.starts, len(self.works)))

    @cached_property
    def columns_by_label(self) -> list[slice]:
        """The columns of each label."""
        return [slice(start, start + size) for start, size in zip(self.starts, self.sizes, strict=True)]

    @cached_property
    def has_label(self) -> Bool[np.ndarray, "n l"]:
        """Which labels each work has."""
        table = np.zeros((len(self.vectors), len(self.names)), dtype=bool)
        table[self.works, np.repeat(np.arange(len(self.names)), self.sizes)] = True
        return table

    @cached_property
    def neighbourhoods(self) -> Neighbourhoods:
        """Neighbourhoods among all works."""
        return self._neighbourhoods(None)

    @cached_property
    def foreign_neighbourhoods(self) -> Neighbourhoods:
        """Neighbourhoods among the works of other labels: an artist's works do not count as each other's hubs."""
        return self._neighbourhoods(torch.from_numpy(self.has_label))

    def transformed(self, transform: Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, "n d"]]) -> LabelledGallery:
        """Return the gallery with transformed vectors, which must have unit length."""
        return replace(self, vectors=transform(self.vectors))

    def same_content(self, contents: Sequence[str | None]) -> Bool[np.ndarray, "b n"]:
        """Return which images and works show the same content; unknown contents are never the same."""
        codes = {content: code for code, content in enumerate(dict.fromkeys(self.contents)) if content is not None}
        works = np.array([-1 if content is None else codes[content] for content in self.contents])
        images = np.array([-2 if content is None else codes.get(content, -2) for content in contents])
        return images[:, None] == works[None]

    def _neighbourhoods(self, groups: Groups | None) -> Neighbourhoods:
        if groups is not None and bool((groups.sum(dim=1) == 1).all()):
            groups = groups.int().argmax(dim=1)  # codes are compared much faster than rows of labels
        found = search(
            self.vectors,
            self.vectors,
            min(SPARE * self.k, len(self.vectors)),
            query_ids=self.ids,
            gallery_ids=self.ids,
            query_groups=groups,
            gallery_groups=groups,
        )
        similarities = np.where(found.indices.numpy() >= 0, found.similarities.numpy(), 0)
        labels = None if groups is None else self.has_label
        return Neighbourhoods(self.vectors, found.indices.numpy(), similarities, self.k, labels)


def group_by_label(gallery: DescriptorSet, label: str, k: int) -> LabelledGallery:
    """Group the works of a gallery by label.

    Args:
        gallery: The works.
        label: "content", "source" or a glob over tags, which selects the labels.
        k: Number of neighbours in CSLS.

    Raises:
        DataError: If fewer than two labels are found.
    """
    values = label_values(gallery.items, label)
    names = sorted({name for of_work in values for name in of_work})
    if len(names) < 2:
        raise _too_few_labels(gallery, label, names)
    codes = {name: code for code, name in enumerate(names)}
    kept = np.flatnonzero([bool(of_work) for of_work in values])
    pairs = sorted((codes[name], work) for work, row in enumerate(kept) for name in set(values[row]))
    label_of_column, works = np.array(pairs).T
    vectors = np.asarray(gallery.descriptors[kept], dtype=np.float32)
    items = gallery.items.iloc[kept]
    return LabelledGallery(
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        ids=items["id"].tolist(),
        contents=items["content"].tolist(),
        names=names,
        works=works,
        starts=np.searchsorted(label_of_column, np.arange(len(names))),
        k=min(k, max(1, len(kept) - 1)),
        unlabelled=len(gallery) - len(kept),
    )


def choose_works(gallery: LabelledGallery, count: int, rng: np.random.Generator) -> Int[np.ndarray, " m"]:
    """Choose works from all labels in turn, until there are `count`."""
    turn = np.empty(len(gallery.works))
    for part in gallery.columns_by_label:
        turn[part] = rng.permutation(part.stop - part.start) + rng.random()
    order = gallery.works[np.argsort(turn, kind="stable")]
    return np.sort(np.array(list(dict.fromkeys(order.tolist()))[:count]))


def _too_few_labels(gallery: DescriptorSet, label: str, names: list[str]) -> DataError:
    tags = sorted({tag for tags in gallery.items["tags"] for tag in tags})
    found = f"only {names[0]!r}" if names else "none"
    advice = "To compare images with the works of one label, use stylesim score." if names else "Check label=GLOB."
    return DataError(
        f"Attribution compares the works of at least two labels, but label={label!r} selects {found} in the gallery of"
        f" {len(gallery):,} works, whose tags are {', '.join(tags[:8]) or 'none'}{', ...' if len(tags) > 8 else ''}."
        f" {advice}"
    )
