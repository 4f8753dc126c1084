"""Images that are only evaluated: queries and gallery, and the chance level."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from stylesim.data.open_samples import open_samples
from stylesim.data.roots import name_roots
from stylesim.data.sample import Sample
from stylesim.data.shards.shard_samples import ShardSamples

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Census:
    """The number of images, and of images with each tag."""

    images: int
    tags: Mapping[str, int]

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Census:
        """Count samples and their tags."""
        samples = list(samples)
        return cls(len(samples), Counter(tag for sample in samples for tag in sample.tags))

    def counts(self, glob: str) -> dict[str, int]:
        """Return the tags that `glob` selects, with their counts."""
        return {tag: count for tag, count in self.tags.items() if fnmatchcase(tag, glob)}


def chance(queries: Census, gallery: Census | None, glob: str) -> float:
    """Return the share of a gallery that is relevant to a query on average: `recall@1` by guessing.

    Exact if no image has two tags of `glob`; otherwise it is the mean number of shared tags, and so an upper bound.

    Args:
        queries: Census of the queries.
        gallery: Census of the gallery; without one, the queries are the gallery, each without itself.
        glob: Selects the tags of which a relevant image shares one.

    Returns:
        A fraction in [0, 1].
    """
    of_queries = queries.counts(glob)
    of_gallery = of_queries if gallery is None else gallery.counts(glob)
    itself = int(gallery is None)
    pairs = sum(count * (of_gallery.get(tag, itself) - itself) for tag, count in of_queries.items())
    candidates = (queries if gallery is None else gallery).images - itself
    return min(1.0, pairs / max(1, queries.images * candidates))


def summary(
    title: str, queries: Census, gallery: Census | None, relevant: Mapping[str, str], *, show_chance: bool = True
) -> str:
    """Describe what was found: images, queries and gallery; for each retrieval set its labels and the chance level.

    `show_chance=False` leaves out the chance level, which counts do not give if images may have several tags or some
    images are not searched.
    """
    if gallery is None:
        lines = [f"{title}: {queries.images:,} images, each a query to all the others"]
    else:
        total = queries.images + gallery.images
        lines = [f"{title}: {total:,} images, {queries.images:,} queries and a gallery of {gallery.images:,}"]
    for name, glob in relevant.items():
        labels = queries.counts(glob).keys() | (gallery.counts(glob).keys() if gallery else set())
        by_label = f" ({1 / len(labels):.2%} by the number of labels)" if labels else ""
        level = f", chance {chance(queries, gallery, glob):.2%}{by_label}" if show_chance else ""
        lines.append(f"  {name}: {len(labels):,} x {glob}{level}")
    return "\n".join(lines)


class TaggedSets:
    """Any images as retrieval sets: shards, folders of images, or tables of paths and tags.

    Args:
        root: The queries, one location or several.
        spec: Function that makes a `RetrievalSpec` from `query`, `gallery` and `relevant`.
        gallery: The gallery, one location or several; None searches the queries themselves.
        relevant: The retrieval sets by name, each a glob over the tags of which a relevant image shares one. Sets by
            group (`{artist: "artist:*", movement: "movement:*"}`) evaluate each group separately.
    """

    def __init__(
        self,
        root: str | Sequence[str],
        *,
        spec: Callable[..., Any],
        gallery: str | Sequence[str] | None = None,
        relevant: Mapping[str, str] | None = None,
    ) -> None:
        self.query = [root] if isinstance(root, str) else list(root)
        self.gallery = [gallery] if isinstance(gallery, str) else list(gallery) if gallery else None
        self.spec, self.relevant = spec, dict(relevant or {"all": "*"})

    def retrieval_sets(self) -> dict[str, Any]:
        """Return a `RetrievalSpec` for each of `relevant`, and log what was found.

        Raises:
            DataError: If a location is missing or empty.
        """
        gallery = _census(self.gallery) if self.gallery else None
        queries = _census(self.query)
        logger.info(summary(", ".join(self.query), queries, gallery, self.relevant, show_chance=False))
        return {
            name: self.spec(query=self.query, gallery=self.gallery, relevant=glob)
            for name, glob in self.relevant.items()
        }


def _census(locations: Sequence[str]) -> Census:
    """Count the images of some locations; for shards, the counts of their indices are used, and no image is read."""
    images, tags = 0, Counter[str]()
    for part in open_samples(name_roots(locations)).parts:
        images += len(part)
        for counts in [i.tags for i in part.indices] if isinstance(part, ShardSamples) else [Census.of(part).tags]:
            tags.update(counts)
    return Census(images, tags)
