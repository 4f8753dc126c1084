"""Stage 4: of pictures that show the same one stays, and none that an evaluation set holds."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes its compute functions when it is imported.

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from stylesim.core.errors import StylesimError
from stylesim.core.files import sha256_of_file
from stylesim.curation.deduplicate.contamination_note import digest_of_set, write_note
from stylesim.curation.deduplicate.fingerprints import FINGERPRINTS, fingerprints
from stylesim.curation.deduplicate.similarity import BINS, Crowds, Describer, Pictures, crowds, rows_near, whitening
from stylesim.curation.previews import Picture, contact_sheet, plot
from stylesim.curation.stage import Piece, Stage, parts, read_stage
from stylesim.curation.tags.tag_pairs import merged_tags

if TYPE_CHECKING:
    from stylesim.retrieval.descriptor_set import DescriptorSet

LARGEST, SHOWN = 10, 9
"""Components on the sheet; each with its kept image and as many of those that resemble that one least."""


def deduplicate(
    stage: Stage,
    *,
    encoder: Callable[[], Any],
    checkpoint: str | None = None,
    threshold: float = 0.8,
    evaluation: Mapping[str, str | Sequence[str]] | None = None,
    index: Literal["ivf", "hnsw", "pq"] | None = None,
    whiten: int | None = None,
) -> dict[str, Any]:
    """Drop what cannot be decoded, what evaluation sets hold, and all but the largest picture of each component.

    Two pictures are near-duplicates where the inner product of their descriptors, by the StyleEncoder that `encoder`
    makes, exceeds `threshold`. Components are of the images that come as near to no evaluation set; of each the one
    with the most pixels stays (of several the least id) and gets the tags of all. Pictures whose pixels are equal have
    equal descriptors, and are described once.

    `checkpoint`: weights of a run of one's own, in place of `encoder`. `evaluation`: name -> shards, folders or tables
    of images, as in RetrievalSpec.query. `index`: None compares all with all, exactly; an index of faiss finds most
    pairs among many millions (`index_recall` tells how many). `whiten`: compare that many principal axes of the
    corpus' descriptors at unit variance, which sharpens an encoder that was not made to tell copies; they are held in
    memory (2 GB for a million images and 512 axes).

    Leaves, besides the parts, `fingerprints/`, `descriptors/`, `evaluation/<name>/`, contamination.json,
    components.png, similarities.png and largest.png: the ten largest components, where a chain of look-alikes that are
    no copies of each other shows. Source: CSD paper, LAION-Styles. Raises StylesimError as `Stage.begin`, `describe`
    and `build_ann_index` do.
    """
    if not -1 <= threshold <= 1:
        raise StylesimError(f"deduplicate.threshold={threshold} is no inner product of descriptors: SSCD's is 0.8.")
    if whiten is not None and whiten < 2:
        raise StylesimError(f"deduplicate.whiten={whiten} axes tell nothing apart: give 128, say, or null.")
    sets = {name: [where] if isinstance(where, str) else list(where) for name, where in (evaluation or {}).items()}
    inputs = {f"evaluation.{name}": digest_of_set(where) for name, where in sets.items()}
    if checkpoint is not None:
        inputs["checkpoint"] = sha256_of_file(Path(checkpoint))
    if (done := stage.begin(**inputs)) is not None:
        return done
    describer = Describer(encoder, checkpoint, stage.show)
    images = _describe(stage, describer)
    prepare = whitening(images.described.descriptors, whiten) if whiten and len(images.described) else np.asarray
    vectors = prepare(images.described.descriptors)
    near, known = {}, {}
    for name, where in sets.items():
        theirs = describer.of_roots(where, stage.folder / "evaluation" / name)
        near[name] = rows_near(vectors, prepare(theirs.descriptors), threshold)
        known[name] = {"images": len(theirs), "dropped": int(near[name][images.places[images.places >= 0]].sum())}
    clean = ~np.any([np.zeros(len(vectors), dtype=bool), *near.values()], axis=0)
    note = stage.folder / ".pairs.partial"  # which Stage.finish takes away
    found = crowds(vectors, images.of_described("hash"), clean, threshold, index, note, stage.show)
    keepers = np.where(clean, images.keepers(found.labels), -1)
    targets, fates = _fates(images, keepers)
    reasons = _reasons(images, targets, fates, near, threshold)
    _write(stage, images, targets, reasons)
    _draw(stage, images, vectors, found, keepers, threshold)
    sizes = np.bincount(found.labels[clean])
    sizes = sizes[sizes > 1]
    readable = images.prints["bytes"].drop_null()
    counts = {"before": len(reasons), "images": reasons.count(None)}
    counts |= {fate: int(mask.sum()) for fate, mask in fates.items()}
    counts |= found.counts | {"components": len(sizes), "largest_component": int(sizes.max(initial=0))}
    counts |= {"same_bytes": len(readable) - len(readable.unique())}
    counts |= {f"contaminated_{name}": one["dropped"] for name, one in known.items()}
    _doubt(counts, threshold, stage.folder)
    if sets and len(vectors):
        write_note(stage.folder, images.described.meta["encoder"], threshold, known, whiten)
    return stage.finish(counts, component_sizes=dict(zip(*_histogram(sizes), strict=True)))


def _doubt(counts: Mapping[str, int], threshold: float, folder: Path) -> None:
    """Say so where more than half of the pictures went for another one: hardly any corpus is like that."""
    if counts["near_duplicates"] > counts["before"] / 2:
        print(
            f"stylesim: {counts['near_duplicates']:,} of {counts['before']:,} images went for another one, the largest"
            f" group has {counts['largest_component']:,}. Is deduplicate.threshold={threshold:g} too low for this"
            f" encoder? Look at {folder / 'largest.png'}. 0.8 is SSCD's; others need a higher one, or"
            " deduplicate.whiten=128.",
            file=sys.stderr,
        )


@dataclass(frozen=True)
class _Images:
    """The images of the stage before, n of them, and their m descriptors: pictures of equal pixels share one."""

    table: pa.Table
    """`id`, `image`, `tags`."""
    prints: pa.Table
    described: DescriptorSet
    rows: Int[np.ndarray, " m"]
    """Which image each descriptor was made of."""
    twins: Int[np.ndarray, " n"]
    """Of the images whose pixels are the same, the one to describe (the least id); -1 where there are none."""

    @property
    def places(self) -> Int[np.ndarray, " n"]:
        """The descriptor of each image, -1 where there is none."""
        places = np.full(len(self.table) + 1, -1)  # the last one is that of twin -1
        places[self.rows] = np.arange(len(self.rows))
        return places[self.twins]

    def of_described(self, column: str) -> Int[np.ndarray, " m"]:
        return self.prints[column].take(pa.array(self.rows)).to_numpy().astype(np.int64)

    def keepers(self, labels: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Of each one's component the descriptor whose picture stays: the largest, of several the least id."""
        area = self.of_described("width") * self.of_described("height")
        rank = np.argsort(np.argsort(np.array(self.described.ids, dtype=str), kind="stable"))
        order = np.lexsort((rank, -area, labels))
        first = np.flatnonzero(np.diff(labels[order], prepend=-1))
        keeper = np.full(len(labels), -1)
        keeper[labels[order[first]]] = order[first]
        return keeper[labels]


def _describe(stage: Stage, describer: Describer) -> _Images:
    assert stage.source is not None
    table = read_stage(stage.source, ["id", "image", "tags"])
    prints = Stage(
        stage.folder / "fingerprints", {}, stage.source, stage.processes, show=stage.show, schema=FINGERPRINTS
    )
    if prints.begin() is None:
        prints.finish(prints.map(fingerprints))
    printed = pa.concat_tables(
        [FINGERPRINTS.empty_table(), *(pq.read_table(p).replace_schema_metadata() for p in parts(prints.folder))]
    )
    twins = _twins(printed)
    unique = np.flatnonzero(twins == np.arange(len(twins)))
    chosen = table.take(pa.array(unique))
    pictures = Pictures(chosen["id"].to_pylist(), chosen["image"].to_pylist())
    described = describer(pictures, stage.folder / "descriptors")
    return _Images(table, printed, described, unique[described.items["position"].to_numpy(np.int64)], twins)


def _twins(prints: pa.Table) -> Int[np.ndarray, " n"]:
    twins = np.full(len(prints), -1)
    order = np.argsort(np.array(prints["id"].to_pylist(), dtype=str), kind="stable")
    pixels = prints["pixels"].to_pylist()
    first: dict[str, int] = {}
    for row in order.tolist():
        if pixels[row] is not None:
            twins[row] = first.setdefault(pixels[row], row)
    return twins


def _fates(images: _Images, keepers: Int[np.ndarray, " m"]) -> tuple[Int[np.ndarray, " n"], dict[str, Any]]:
    """The image that each is kept as, or goes into (-1: none); and which images go why, as masks."""
    places, own = images.places, np.arange(len(images.table))
    kept_as = np.append(keepers, -1)[places]  # a descriptor; -1 where there is none, or an evaluation set holds it
    targets = np.append(images.rows, -1)[kept_as]
    return targets, {
        "unreadable": images.twins < 0,
        "undescribed": (images.twins >= 0) & (places < 0),
        "contaminated": (places >= 0) & (kept_as < 0),
        "near_duplicates": (kept_as >= 0) & (kept_as != places),
        "same_pixels": (kept_as >= 0) & (kept_as == places) & (targets != own),
    }


def _reasons(
    images: _Images,
    targets: Int[np.ndarray, " n"],
    fates: Mapping[str, Bool[np.ndarray, " n"]],
    near: Mapping[str, Bool[np.ndarray, " m"]],
    threshold: float,
) -> list[str | None]:
    """Why each image goes, in words; None for those that stay."""
    ids, places = images.table["id"].to_pylist(), images.places
    unreadable, undescribed = images.prints["reason"].to_pylist(), dict(images.described.damaged)
    words: dict[str, Callable[[int], str]] = {
        "unreadable": lambda row: unreadable[row],
        "undescribed": lambda row: f"undescribed: {undescribed[ids[images.twins[row]]]}",
        "contaminated": lambda row: (
            f"contaminated: within {threshold:g} of {next(name for name, hits in near.items() if hits[places[row]])}"
        ),
        "near_duplicates": lambda row: f"near-duplicate of {ids[targets[row]]}",
        "same_pixels": lambda row: f"the pixels of {ids[targets[row]]}",
    }
    reasons: list[str | None] = [None] * len(ids)
    for fate, mask in fates.items():
        for row in np.flatnonzero(mask).tolist():
            reasons[row] = words[fate](row)
    return reasons


def _write(stage: Stage, images: _Images, targets: Int[np.ndarray, " n"], reasons: Sequence[str | None]) -> None:
    """The parts, with the tags merged and the sizes that the files have."""
    merged, start = merged_tags(images.table, targets), 0
    for number, part in enumerate(stage.pieces()):
        table = pq.read_table(part).replace_schema_metadata()
        here = slice(start, start + len(table))
        for name, source in (("tags", merged), ("width", images.prints), ("height", images.prints)):
            table = table.set_column(table.column_names.index(name), name, source[name][here])
        why = pa.array(reasons[here], pa.string())
        kept, dropped = table.filter(pc.is_null(why)), pa.table({"id": table["id"], "reason": why})
        stage.write(number, Piece(kept, {"images": len(kept)}, dropped.filter(pc.is_valid(why))))
        start += len(table)


def _draw(
    stage: Stage,
    images: _Images,
    vectors: Float[np.ndarray, "m d"],
    found: Crowds,
    keepers: Int[np.ndarray, " m"],
    threshold: float,
) -> None:
    clean = keepers >= 0
    sizes = np.bincount(found.labels[clean], minlength=1)
    at, counts = _histogram(sizes[sizes > 1])
    plot(stage.folder / "components.png", {"": (at, counts)}, x="images of a component", y="components")
    edges = np.linspace(threshold, 1, BINS + 1)
    curves = {"": (edges, found.similarities)}
    plot(stage.folder / "similarities.png", curves, x="inner product", y="pairs", scale=("linear", "log"), steps=True)

    ids = images.described.ids
    locators = images.described.items["source"].tolist()
    sheet = []
    for label in np.argsort(-sizes, kind="stable")[:LARGEST]:
        if sizes[label] < 2:
            break
        members = np.flatnonzero(clean & (found.labels == label))
        keeper = keepers[members[0]]
        likeness = vectors[members].astype(np.float64) @ vectors[keeper].astype(np.float64)
        others = [(m, s) for s, m in sorted(zip(likeness.tolist(), members.tolist(), strict=True)) if m != keeper]
        row = [Picture(ids[keeper], locators[keeper], f"{sizes[label]:,} images")]
        sheet.append(row + [Picture(ids[m], locators[m], ids[m], s) for m, s in others[:SHOWN]])
    if sheet:
        contact_sheet(stage.folder / "largest.png", sheet)


def _histogram(sizes: Int[np.ndarray, " c"]) -> tuple[list[int], list[int]]:
    """Sizes that occur, and how often."""
    at, counts = np.unique(sizes, return_counts=True)
    return at.tolist(), counts.tolist()
