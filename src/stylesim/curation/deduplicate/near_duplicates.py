"""Stage 4: keep one image of each group of near-duplicates, and drop images that an evaluation set contains."""

# pyright: reportAttributeAccessIssue=false
# pyarrow generates its compute functions when it is imported.

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from stylesim.core.errors import ConfigError
from stylesim.core.files import sha256_of_file
from stylesim.core.stages.stage_parts import Part
from stylesim.curation.deduplicate.contamination_note import digest_of_set, write_note
from stylesim.curation.deduplicate.duplicate_groups import BINS, DuplicateGroups, group_duplicates, rows_near_any
from stylesim.curation.deduplicate.embed_images import ImageEmbedder, whitening
from stylesim.curation.deduplicate.embedded_corpus import EmbeddedCorpus, embed_corpus
from stylesim.curation.previews import SheetImage, plot_curves, write_contact_sheet
from stylesim.curation.stage import Stage
from stylesim.curation.tags.tag_pairs import merge_tags

if TYPE_CHECKING:
    from stylesim.encoders.style_encoder import StyleEncoder

logger = logging.getLogger(__name__)

LARGEST, MEMBERS_SHOWN = 10, 9
"""Number of components on the contact sheet, and of images shown beside the one that is kept (the least similar)."""


def deduplicate(
    stage: Stage,
    *,
    encoder: Callable[[], StyleEncoder],
    checkpoint: str | None = None,
    threshold: float = 0.8,
    evaluation: Mapping[str, str | Sequence[str]] | None = None,
    index: Literal["ivf", "hnsw", "pq"] | None = None,
    whiten: int | None = None,
) -> dict[str, Any]:
    """Drop unreadable images, images that evaluation sets contain, and all but one image of each component.

    Two images are near-duplicates if the inner product of their descriptors exceeds `threshold`. The images that are
    not near an evaluation set form the connected components of these pairs. Of each component, the image with the most
    pixels is kept (ties by id), with the tags of all. Images with equal pixels have equal descriptors, so only one of
    them is embedded.

    Besides the parts, the stage folder receives `fingerprints/`, `descriptors/`, `evaluation/<name>/`,
    contamination.json, components.png, similarities.png and largest.png. The last one shows the ten largest components,
    and reveals a chain of similar images that are not copies of each other. Source: CSD paper, LAION-Styles.

    Args:
        stage: The folder to write to.
        encoder: The encoder whose descriptors are compared; chosen with model@deduplicate.encoder=NAME.
        checkpoint: Weights of a training run (best.safetensors) to use instead of the encoder.
        threshold: Inner product above which two images are near-duplicates, in [-1, 1]; 0.8 suits SSCD.
        evaluation: Evaluation sets to clear the images of, by name: shards, folders or tables of images.
        index: null compares all pairs exactly. An index finds most pairs among many millions of images; the count
            `index_recall` estimates how many.
        whiten: Number of principal axes to compare at unit variance, for an encoder that was not trained to recognise
            copies. They are held in memory: 2 GB for a million images and 512 axes.

    Returns:
        The counts of the stage.

    Raises:
        ConfigError: If a setting is out of range; also as for `Stage.begin` and `build_ann_index`.
        WeightsError: If the head of the encoder was never trained.
        DataError: If an evaluation set is missing or empty; also as for `embed`.
    """
    check_ranges(threshold, whiten)
    sets = _as_lists(evaluation)
    inputs = {f"evaluation.{name}": digest_of_set(roots) for name, roots in sets.items()}
    if checkpoint is not None:
        inputs["checkpoint"] = sha256_of_file(Path(checkpoint))
    if (done := stage.begin(**inputs)) is not None:
        return done
    embedder = ImageEmbedder(encoder, checkpoint, stage.show)
    corpus = embed_corpus(stage, embedder)
    transform = whitening(corpus.embedded.descriptors, whiten) if whiten and len(corpus.embedded) else np.asarray
    vectors = transform(corpus.embedded.descriptors)
    near, set_counts = {}, {}
    for name, roots in sets.items():
        gallery = embedder.embed_roots(roots, stage.folder / "evaluation" / name)
        near[name] = rows_near_any(vectors, transform(gallery.descriptors), threshold)
        descriptor_rows = corpus.descriptor_rows
        dropped = int(near[name][descriptor_rows[descriptor_rows >= 0]].sum())
        set_counts[name] = {"images": len(gallery), "dropped": dropped}
    clean = ~np.any([np.zeros(len(vectors), dtype=bool), *near.values()], axis=0)
    state_file = stage.folder / ".pairs.partial"  # removed by Stage.finish
    groups = group_duplicates(vectors, corpus.fingerprint("hash"), clean, threshold, index, state_file, stage.show)
    keepers = np.where(clean, corpus.keepers(groups.labels), -1)
    targets, outcomes = _outcomes(corpus, keepers)
    reasons = _reasons(corpus, targets, outcomes, near, threshold)
    _write_parts(stage, corpus, targets, reasons)
    _write_previews(stage, corpus, vectors, groups, keepers, threshold)
    sizes = np.bincount(groups.labels[clean])
    sizes = sizes[sizes > 1]
    readable = corpus.fingerprints["bytes"].drop_null()
    counts = {"before": len(reasons), "images": reasons.count(None)}
    counts |= {outcome: int(mask.sum()) for outcome, mask in outcomes.items()}
    counts |= groups.counts | {"components": len(sizes), "largest_component": int(sizes.max(initial=0))}
    counts |= {"same_bytes": len(readable) - len(readable.unique())}
    counts |= {f"contaminated_{name}": one["dropped"] for name, one in set_counts.items()}
    _warn_if_implausible(counts, threshold, stage.folder)
    if sets and len(vectors):
        write_note(stage.folder, corpus.embedded.meta["encoder"], threshold, set_counts, whiten)
    return stage.finish(counts, component_sizes=dict(zip(*_size_counts(sizes), strict=True)))


def check_settings(
    threshold: float,
    whiten: int | None,
    evaluation: Mapping[str, str | Sequence[str]] | None,
    **others: Any,
) -> None:
    """Check settings of `deduplicate`, and that the evaluation sets exist.

    Raises:
        ConfigError: If a number is out of range.
        DataError: If an evaluation set is missing or empty.
    """
    check_ranges(threshold, whiten)
    for roots in _as_lists(evaluation).values():
        digest_of_set(roots)


def check_ranges(threshold: float, whiten: int | None) -> None:
    """Raise `ConfigError` if a number is out of range."""
    if not -1 <= threshold <= 1:
        raise ConfigError(
            f"deduplicate.threshold must be an inner product in [-1, 1], got {threshold}; 0.8 suits SSCD."
        )
    if whiten is not None and whiten < 2:
        raise ConfigError(f"deduplicate.whiten must be null or an integer of at least 2, such as 128, got {whiten}.")


def _as_lists(evaluation: Mapping[str, str | Sequence[str]] | None) -> dict[str, list[str]]:
    return {name: [roots] if isinstance(roots, str) else list(roots) for name, roots in (evaluation or {}).items()}


def _warn_if_implausible(counts: Mapping[str, int], threshold: float, folder: Path) -> None:
    """Warn if more than half of the images were dropped as near-duplicates, which is rarely correct."""
    if counts["near_duplicates"] > counts["before"] / 2:
        logger.warning(
            f"{counts['near_duplicates']:,} of {counts['before']:,} images were dropped as near-duplicates; the largest"
            f" component has {counts['largest_component']:,} images. deduplicate.threshold={threshold:g} may be too low"
            f" for this encoder: look at {folder / 'largest.png'}. The default of 0.8 is for SSCD; other encoders need"
            " a higher threshold, or deduplicate.whiten=128."
        )


def _outcomes(
    corpus: EmbeddedCorpus, keepers: Int[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " n"], dict[str, Bool[np.ndarray, " n"]]]:
    """Return the image into which each image is merged (-1 if none), and masks of the images dropped by cause."""
    descriptor_rows, own = corpus.descriptor_rows, np.arange(len(corpus.table))
    # The kept descriptor of each image; -1 if the image has no descriptor or is near an evaluation set.
    kept = np.append(keepers, -1)[descriptor_rows]
    targets = np.append(corpus.rows, -1)[kept]
    return targets, {
        "unreadable": corpus.representatives < 0,
        "not_embedded": (corpus.representatives >= 0) & (descriptor_rows < 0),
        "contaminated": (descriptor_rows >= 0) & (kept < 0),
        "near_duplicates": (kept >= 0) & (kept != descriptor_rows),
        "same_pixels": (kept >= 0) & (kept == descriptor_rows) & (targets != own),
    }


def _reasons(
    corpus: EmbeddedCorpus,
    targets: Int[np.ndarray, " n"],
    outcomes: Mapping[str, Bool[np.ndarray, " n"]],
    near: Mapping[str, Bool[np.ndarray, " m"]],
    threshold: float,
) -> list[str | None]:
    """Return why each image is dropped; None if it is kept."""
    ids, descriptor_rows = corpus.table["id"].to_pylist(), corpus.descriptor_rows
    unreadable, damaged = corpus.fingerprints["reason"].to_pylist(), dict(corpus.embedded.damaged)

    def evaluation_set(row: int) -> str:
        return next(name for name, rows in near.items() if rows[descriptor_rows[row]])

    explain: dict[str, Callable[[int], str]] = {
        "unreadable": lambda row: unreadable[row],
        "not_embedded": lambda row: f"not embedded: {damaged[ids[corpus.representatives[row]]]}",
        "contaminated": lambda row: f"contaminated: within {threshold:g} of {evaluation_set(row)}",
        "near_duplicates": lambda row: f"near-duplicate of {ids[targets[row]]}",
        "same_pixels": lambda row: f"the pixels of {ids[targets[row]]}",
    }
    reasons: list[str | None] = [None] * len(ids)
    for outcome, mask in outcomes.items():
        for row in np.flatnonzero(mask).tolist():
            reasons[row] = explain[outcome](row)
    return reasons


def _write_parts(
    stage: Stage, corpus: EmbeddedCorpus, targets: Int[np.ndarray, " n"], reasons: Sequence[str | None]
) -> None:
    """Write the parts with merged tags, and with the sizes measured from the files instead of those in the metadata."""
    merged, start = merge_tags(corpus.table, targets), 0
    for number, part in enumerate(stage.source_parts()):
        table = pq.read_table(part).replace_schema_metadata()
        here = slice(start, start + len(table))
        for name, source in (("tags", merged), ("width", corpus.fingerprints), ("height", corpus.fingerprints)):
            table = table.set_column(table.column_names.index(name), name, source[name][here])
        reason = pa.array(reasons[here], pa.string())
        kept, dropped = table.filter(pc.is_null(reason)), pa.table({"id": table["id"], "reason": reason})
        stage.write_part(number, Part(kept, {"images": len(kept)}, dropped.filter(pc.is_valid(reason))))
        start += len(table)


def _write_previews(
    stage: Stage,
    corpus: EmbeddedCorpus,
    vectors: Float[np.ndarray, "m d"],
    groups: DuplicateGroups,
    keepers: Int[np.ndarray, " m"],
    threshold: float,
) -> None:
    clean = keepers >= 0
    sizes = np.bincount(groups.labels[clean], minlength=1)
    curves = {"": _size_counts(sizes[sizes > 1])}
    plot_curves(stage.folder / "components.png", curves, x="images of a component", y="components")
    histogram = {"": (np.linspace(threshold, 1, BINS + 1), groups.similarities)}
    file = stage.folder / "similarities.png"
    plot_curves(file, histogram, x="inner product", y="pairs", scale=("linear", "log"), steps=True)

    ids = corpus.embedded.ids
    locators = corpus.embedded.items["source"].tolist()
    sheet = []
    for label in np.argsort(-sizes, kind="stable")[:LARGEST]:
        if sizes[label] < 2:
            break
        members = np.flatnonzero(clean & (groups.labels == label))
        keeper = keepers[members[0]]
        similarities = vectors[members].astype(np.float64) @ vectors[keeper].astype(np.float64)
        others = [(m, s) for s, m in sorted(zip(similarities.tolist(), members.tolist(), strict=True)) if m != keeper]
        row = [SheetImage(ids[keeper], locators[keeper], f"{sizes[label]:,} images")]
        sheet.append(row + [SheetImage(ids[m], locators[m], ids[m], s) for m, s in others[:MEMBERS_SHOWN]])
    if sheet:
        write_contact_sheet(stage.folder / "largest.png", sheet)


def _size_counts(sizes: Int[np.ndarray, " c"]) -> tuple[list[int], list[int]]:
    """Return the distinct component sizes, and how often each occurs."""
    distinct, counts = np.unique(sizes, return_counts=True)
    return distinct.tolist(), counts.tolist()
