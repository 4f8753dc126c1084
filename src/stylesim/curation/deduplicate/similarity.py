"""Descriptors of a stage's images, and what they say: who holds whom, and who hangs together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from stylesim.core.errors import StylesimError
from stylesim.core.progress import progress
from stylesim.curation.deduplicate.disjoint_sets import Components
from stylesim.curation.stage import open_image_at
from stylesim.data.sample import Sample

if TYPE_CHECKING:
    from stylesim.retrieval.descriptor_set import DescriptorSet

BINS = 50
SAVED_EVERY = 1 << 31
"""Comparisons between two notes of how far the pairs have come: some seconds of work."""


@dataclass(frozen=True)
class Pictures:
    """Images of a stage as `describe` takes them, read one at a time."""

    ids: Sequence[str]
    locators: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Sample]:
        for name, locator in zip(self.ids, self.locators, strict=True):
            image = None
            with suppress(StylesimError):  # gone since it was fingerprinted: describe counts it
                image = open_image_at(locator)
            yield Sample(name, image, [], None, locator)


class Describer:
    """Describes sets of images into folders, with an encoder that is loaded when the first of them is not done yet."""

    def __init__(self, make: Callable[[], Any], checkpoint: str | None, show: bool) -> None:
        self.make, self.checkpoint, self.show = make, checkpoint, show

    def __call__(self, items: Any, folder: Path) -> DescriptorSet:
        from stylesim.evaluation.embed import embed
        from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

        if folder.is_dir():
            return DescriptorSet.load(folder)
        if not len(items):
            return DescriptorSet(np.empty((0, 1), dtype=np.float32), item_table(()))
        return embed(self.encoder, items, folder, progress=self.show)

    def of_roots(self, locations: Sequence[str], folder: Path) -> DescriptorSet:
        """Shards, folders or tables of images."""
        from stylesim.data.open_samples import open_samples
        from stylesim.data.roots import name_roots

        return self(open_samples(name_roots(locations)), folder)

    @cached_property
    def encoder(self) -> Any:
        from stylesim.encoders.weights.checkpoint import load_checkpoint

        encoder = load_checkpoint(self.checkpoint) if self.checkpoint else self.make()
        if not encoder.provenance.trained_head:
            raise StylesimError(
                f"The head of {encoder.provenance.name} has never been trained, so it tells no copies: take"
                " model@deduplicate.encoder=sscd_reference, another one of trained weights, or a checkpoint."
            )
        return encoder


def whitening(
    descriptors: Float[np.ndarray, "n d"], axes: int
) -> Callable[[Float[np.ndarray, "m d"]], Float[np.ndarray, "m r"]]:
    """What brings descriptors to unit variance along the principal axes of these ones, and then to unit length.

    Raises StylesimError where there are no more descriptors than axes: they would all be equally alike.
    """
    from stylesim.retrieval.pca import fit_pca

    if len(descriptors) <= axes + 1:
        raise StylesimError(
            f"deduplicate.whiten={axes} axes of {len(descriptors):,} pictures makes all of these equally alike: take"
            " far fewer axes than there are pictures, or null."
        )
    fitted = fit_pca(descriptors, axes)
    return lambda some: fitted.project(some, whiten=True, unit=True)


def rows_near(
    ours: Float[np.ndarray, "n d"], theirs: Float[np.ndarray, "m d"], threshold: float
) -> Bool[np.ndarray, " n"]:
    """Which rows of `ours` exceed the threshold with any of `theirs`."""
    from stylesim.encoders.base import pick_device
    from stylesim.retrieval.similar_pairs import pairs_above

    near = np.zeros(len(ours), dtype=bool)
    if not len(ours):  # nobody knows then how many numbers a descriptor would have
        return near
    for pairs in pairs_above(ours, theirs, threshold=threshold, device=pick_device()):
        near[pairs.left] = True
    return near


class Crowds(NamedTuple):
    """Images that hang together."""

    labels: Int[np.ndarray, " n"]
    """The least row of each row's component."""
    similarities: Int[np.ndarray, " BINS"]
    """How many pairs are how alike, from the threshold to 1 in equal bins."""
    counts: dict[str, Any]


def crowds(
    descriptors: Float[np.ndarray, "n d"],
    hashes: Int[np.ndarray, " n"],
    clean: Bool[np.ndarray, " n"],
    threshold: float,
    index: Literal["ivf", "hnsw", "pq"] | None,
    note: Path,
    show: bool,
) -> Crowds:
    """Components of the `clean` rows under all pairs above the threshold; interrupted, it goes on from `note`.

    Rows of one perceptual hash are proposed as pairs besides: to exact search that adds nothing, to an index what it
    missed; `same_hash` and `same_hash_confirmed` tell how far such a hash can be trusted.
    """
    from stylesim.encoders.base import pick_device
    from stylesim.retrieval.similar_pairs import confirm_pairs, indexed_pairs, pairs_above

    components, histogram, done = _begin(note, len(descriptors))
    edges, proposed = np.linspace(threshold, 1, BINS + 1), _same(hashes, clean)
    left, right, _ = confirm_pairs(descriptors, descriptors, *proposed, threshold)
    components.join(left, right)
    counts: dict[str, Any] = {"same_hash": len(proposed[0]), "same_hash_confirmed": len(left)}
    if index is not None and len(descriptors):
        indexed = indexed_pairs(descriptors, threshold=threshold, kind=index)
        counts["index_recall"] = indexed.recall
        blocks = [indexed.pairs]
    else:
        blocks = pairs_above(descriptors, threshold=threshold, start=done, device=pick_device())
    saved = done
    with progress("comparing", len(descriptors), unit="rows", show=show) as advance:
        advance(done)
        for pairs in blocks:
            both = clean[pairs.left] & clean[pairs.right]
            components.join(pairs.left[both], pairs.right[both])
            histogram += np.histogram(pairs.similarities[both].clip(max=1), edges)[0]
            advance(pairs.done - done)
            ended, done = pairs.done > done, pairs.done
            if index is None and ended and (done - saved) * len(descriptors) > SAVED_EVERY:
                _save(note, components, histogram, done)
                saved = done
    return Crowds(components.labels(), histogram, counts | {"pairs": int(histogram.sum())})


def _begin(note: Path, n: int) -> tuple[Components, Int[np.ndarray, " BINS"], int]:
    components = Components(n)
    if not note.exists():
        return components, np.zeros(BINS, dtype=np.int64), 0
    with np.load(note) as saved:
        components.parents = saved["parents"]
        return components, saved["histogram"], int(saved["done"])


def _save(note: Path, components: Components, histogram: Int[np.ndarray, " BINS"], done: int) -> None:
    hidden = note.with_name(f"{note.name}.partial")
    with hidden.open("wb") as file:
        np.savez(file, parents=components.parents, histogram=histogram, done=done)
    hidden.replace(note)


def _same(
    hashes: Int[np.ndarray, " n"], clean: Bool[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Each clean row with the next one of the same hash: a chain is enough to connect them."""
    rows = np.flatnonzero(clean)
    rows = rows[np.argsort(hashes[rows], kind="stable")]
    same = hashes[rows[:-1]] == hashes[rows[1:]]
    return rows[:-1][same], rows[1:][same]
