"""Images that are only evaluated: who queries what, and what a guess would find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from stylesim.data.open_samples import open_samples
from stylesim.data.roots import name_roots
from stylesim.data.sample import Sample
from stylesim.data.shards.shard_samples import ShardSamples


@dataclass(frozen=True)
class Census:
    """How many images there are, and how many of them have each tag."""

    images: int
    tags: Mapping[str, int]

    @classmethod
    def of(cls, items: Iterable[Sample]) -> Census:
        items = list(items)
        return cls(len(items), Counter(tag for item in items for tag in item.tags))

    def counts(self, glob: str) -> dict[str, int]:
        """The tags that `glob` selects, with their counts."""
        return {tag: count for tag, count in self.tags.items() if fnmatchcase(tag, glob)}


def chance(queries: Census, gallery: Census | None, glob: str) -> float:
    """The share of a gallery, in [0, 1], that is relevant to a query on average: what `recall@1` is by guessing.

    Without a gallery the queries are their own, each without itself. Exact where no image has two tags of `glob`; with
    several it is the mean number of shared tags, and so an upper bound.
    """
    ours = queries.counts(glob)
    theirs = ours if gallery is None else gallery.counts(glob)
    itself = int(gallery is None)
    pairs = sum(count * (theirs.get(tag, itself) - itself) for tag, count in ours.items())
    candidates = (queries if gallery is None else gallery).images - itself
    return min(1.0, pairs / max(1, queries.images * candidates))


def summary(title: str, queries: Census, gallery: Census | None, relevant: Mapping[str, str]) -> str:
    """What was found: images, queries and gallery; for each retrieval set its labels and the chance level."""
    if gallery is None:
        lines = [f"{title}: {queries.images:,} images, each of which queries all the others"]
    else:
        whole = queries.images + gallery.images
        lines = [f"{title}: {whole:,} images, {queries.images:,} queries and a gallery of {gallery.images:,}"]
    for name, glob in relevant.items():
        labels = queries.counts(glob).keys() | (gallery.counts(glob).keys() if gallery else set())
        by_label = f" ({1 / len(labels):.2%} by the number of labels)" if labels else ""
        lines.append(f"  {name}: {len(labels):,} x {glob}, chance {chance(queries, gallery, glob):.2%}{by_label}")
    return "\n".join(lines)


class TaggedSets:
    """Any images as retrieval sets: shards, folders of images, or tables of paths and tags.

    `root`: the queries, one location or several. `gallery`: likewise; None lets the queries find each other.
    `relevant`: the retrieval sets by name, each a glob over the tags of which a neighbour has to share one; sets by
    group (`{artist: "artist:*", movement: "movement:*"}`) score each group by itself. `spec` makes a `RetrievalSpec` of
    `query`, `gallery` and `relevant`.
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
        """A `RetrievalSpec` for each of `relevant`; prints what was found. Raises `StylesimError` for an empty root."""
        gallery = _census(self.gallery) if self.gallery else None
        print(summary(", ".join(self.query), _census(self.query), gallery, self.relevant), flush=True)
        return {
            name: self.spec(query=self.query, gallery=self.gallery, relevant=glob)
            for name, glob in self.relevant.items()
        }


def _census(locations: Sequence[str]) -> Census:
    """Of shards what their indices say: no image is read."""
    images, tags = 0, Counter[str]()
    for part in open_samples(name_roots(locations)).parts:
        images += len(part)
        for counts in [i.tags for i in part.indices] if isinstance(part, ShardSamples) else [Census.of(part).tags]:
            tags.update(counts)
    return Census(images, tags)
