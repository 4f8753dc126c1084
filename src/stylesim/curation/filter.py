"""Stage 3: drop images that are small, unsafe or have a low score, and tags that are too frequent or too rare."""

# pyright: reportAttributeAccessIssue=false
# pyarrow generates its compute functions when it is imported.

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylesim.core.errors import ConfigError
from stylesim.core.stages.stage import require_positive
from stylesim.core.stages.stage_parts import Part, part_paths, write_csv
from stylesim.curation.previews import SheetImage, plot_curves, write_contact_sheet
from stylesim.curation.stage import Stage
from stylesim.curation.tags.tag_pairs import set_tags, tag_pairs

logger = logging.getLogger(__name__)

COLUMNS = ["width", "height", "aesthetic", "nsfw", "tags"]
"""The columns that the rules read."""
REASONS = ("small", "low_aesthetic", "nsfw", "untagged", "only_dropped_tags")
SAMPLES_PER_REASON = 9
"""Images per row of samples.png."""
SAMPLED_PARTS = 20
"""samples.png shows images from this many parts, the first ones."""
SIZE_EDGES = np.unique(np.geomspace(16, 16384, 49).round())
"""Bins of sizes.png, in px of the short side."""


class ImageRules(NamedTuple):
    """The requirements on an image, apart from its tags."""

    min_size: int
    min_aesthetic: float | None
    nsfw: float | Sequence[str] | None


def filter_images(
    stage: Stage,
    *,
    max_tag_images: int | None = 100_000,
    min_tag_images: int = 1,
    min_size: int = 0,
    min_aesthetic: float | None = None,
    nsfw: float | Sequence[str] | None = None,
) -> dict[str, Any]:
    """Filter images by size, score and safety, then tags by their number of remaining images, then untagged images.

    An image that loses its last tag is dropped as well (`only_dropped_tags`). Since it has no other tag, this changes
    no count of another tag, so one pass over the tags is enough.

    Images with an unknown value pass and are counted (`size_unknown`, `aesthetic_unknown`, `nsfw_unknown`). The stage
    folder also receives tags.csv (each tag, its number of images, and whether it is kept), tags.png, sizes.png and
    samples.png.

    Args:
        stage: The folder to write to.
        max_tag_images: A tag with more images is removed from them; null removes none. The CSD paper uses 100,000.
        min_tag_images: A tag with fewer images is removed from them.
        min_size: The smallest short side, in px.
        min_aesthetic: The lowest aesthetic score.
        nsfw: Labels to drop, such as [NSFW, UNSURE] (in upper or lower case), or a probability: images with at least
            this probability are dropped.

    Returns:
        The counts of the stage.

    Raises:
        ConfigError: As for `check_settings` and `Stage.begin`.
    """
    check_settings(max_tag_images, min_tag_images, min_size, min_aesthetic, nsfw)
    if (done := stage.begin()) is not None:
        return done
    rules = ImageRules(min_size, min_aesthetic, nsfw)
    tags, sizes = _count_tags_and_sizes(stage, rules)
    allowed = [tag for tag, n in tags.items() if min_tag_images <= n <= (max_tag_images or n)]
    part_counts = stage.map_parts(partial(_filter_part, rules=rules, allowed=allowed))
    counts = {name: part_counts[name] for name in ("before", "images", *REASONS)} | part_counts
    counts |= {
        "tags_before": len(tags),
        "tags": len(allowed),
        "tags_over": sum(n > max_tag_images for n in tags.values()) if max_tag_images else 0,
        "tags_under": sum(n < min_tag_images for n in tags.values()),
    }
    _write_tags(stage, tags, set(allowed))
    _write_plots(stage, tags, allowed, sizes, min_size)
    _write_samples(stage)
    _warn_of_unused_labels(stage, nsfw)
    over = {tag: n for tag, n in tags.most_common() if max_tag_images and n > max_tag_images}
    return stage.finish(counts, over_represented=over)


def check_settings(
    max_tag_images: int | None,
    min_tag_images: int,
    min_size: int,
    min_aesthetic: float | None,
    nsfw: float | Sequence[str] | None,
) -> None:
    """Check settings of `filter_images`.

    Raises:
        ConfigError: If a number is out of range.
    """
    require_positive("filter.max_tag_images", max_tag_images)
    if max_tag_images is not None and max_tag_images < min_tag_images:
        raise ConfigError(
            f"filter.max_tag_images={max_tag_images} is less than filter.min_tag_images={min_tag_images}: no tag would"
            " be left."
        )
    if min_size < 0:
        raise ConfigError(f"filter.min_size must be 0 px or more, got {min_size}.")
    if isinstance(nsfw, float | int) and not 0 <= nsfw <= 1:
        raise ConfigError(f"filter.nsfw must be a probability in [0, 1], a list of labels, or null, got {nsfw}.")


def first_broken_rule(table: pa.Table, rules: ImageRules) -> pa.Array:
    """Return the first rule that each row breaks (small, low_aesthetic, nsfw, untagged), or null."""
    short_side = pc.min_element_wise(table["width"], table["height"], skip_nulls=False)
    broken = {"small": pc.less(short_side, rules.min_size)}
    if rules.min_aesthetic is not None:
        broken["low_aesthetic"] = pc.less(table["aesthetic"], rules.min_aesthetic)
    if rules.nsfw is not None:
        broken["nsfw"] = _is_unsafe(table["nsfw"], rules.nsfw)
    broken["untagged"] = pc.equal(pc.coalesce(pc.list_value_length(table["tags"]), 0), 0)
    conditions = pc.make_struct(*(pc.fill_null(mask, False) for mask in broken.values()), field_names=list(broken))
    return pc.case_when(conditions, *(pa.scalar(name) for name in broken))


def _is_unsafe(column: pa.ChunkedArray, nsfw: float | Sequence[str]) -> pa.ChunkedArray:
    """Return whether each row is unsafe; null if its value is unknown or, with a probability, not a number."""
    if isinstance(nsfw, float | int):
        numbers = pc.if_else(pc.match_substring_regex(column, r"^[0-9]*\.?[0-9]+$"), column, None)
        return pc.greater_equal(numbers.cast(pa.float64()), nsfw)
    return pc.is_in(pc.utf8_upper(column), value_set=pa.array([label.upper() for label in nsfw]))


def _count_tags_and_sizes(stage: Stage, rules: ImageRules) -> tuple[Counter[str], np.ndarray]:
    """Return the number of images of each tag, and histograms of the sizes of all images and of those that pass.

    Only images that break no rule are counted for a tag.
    """
    counts: Counter[str] = Counter()
    sizes = np.zeros((2, len(SIZE_EDGES) - 1), dtype=np.int64)
    for part in stage.source_parts():
        table = pq.read_table(part, columns=COLUMNS)
        passing = table.filter(pc.is_null(first_broken_rule(table, rules)))
        for histogram, rows in enumerate((table, passing)):
            short_side = pc.min_element_wise(rows["width"], rows["height"], skip_nulls=False).drop_null().to_numpy()
            sizes[histogram] += np.histogram(short_side.clip(SIZE_EDGES[0], SIZE_EDGES[-1]), SIZE_EDGES)[0]
        for entry in tag_pairs(passing)[1].value_counts().to_pylist():
            counts[entry["values"]] += entry["counts"]
    return Counter(dict(sorted(counts.items()))), sizes


def _filter_part(table: pa.Table, *, rules: ImageRules, allowed: Collection[str]) -> Part:
    reasons = first_broken_rule(table, rules)
    rows, tags = tag_pairs(table)
    good = pc.is_in(tags, value_set=pa.array(allowed, pa.string()))
    table = set_tags(table, rows[good.to_numpy(zero_copy_only=False)], tags.filter(good))
    emptied = pc.equal(pc.list_value_length(table["tags"]), 0)
    reasons = pc.coalesce(reasons, pc.if_else(emptied, pa.scalar("only_dropped_tags"), pa.scalar(None, pa.string())))
    passing = pc.is_null(reasons)
    dropped = pa.table({"id": table["id"], "reason": reasons}).filter(pc.invert(passing))
    counts = {"before": len(table), "images": len(table) - len(dropped)}
    counts |= Counter(dropped["reason"].to_pylist())
    counts |= {f"{name}_unknown": column.null_count for name, column in _required_columns(table, rules)}
    return Part(table.filter(passing), counts, dropped)


def _required_columns(table: pa.Table, rules: ImageRules) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """Yield the columns that the rules need, null where the value is unknown."""
    if rules.min_size:
        yield "size", pc.min_element_wise(table["width"], table["height"], skip_nulls=False)
    if rules.min_aesthetic is not None:
        yield "aesthetic", table["aesthetic"]
    if rules.nsfw is not None:
        known = table["nsfw"] if not isinstance(rules.nsfw, float | int) else _is_unsafe(table["nsfw"], rules.nsfw)
        yield "nsfw", known


def _warn_of_unused_labels(stage: Stage, nsfw: float | Sequence[str] | None) -> None:
    """Warn if no image has one of the labels, which may be misspelt."""
    if nsfw is None or isinstance(nsfw, float | int):
        return
    columns = (pq.read_table(part, columns=["nsfw"])["nsfw"] for part in stage.source_parts())
    known = {label.upper() for column in columns for label in column.unique().drop_null().to_pylist()}
    for label in nsfw:
        if known and label.upper() not in known:
            logger.warning(
                f"filter.nsfw has the label {label}, but no image has it. The labels of the images are"
                f" {', '.join(sorted(known)[:10])}."
            )


def _write_tags(stage: Stage, tags: Counter[str], allowed: Collection[str]) -> None:
    ranked = sorted(tags.items(), key=lambda pair: (-pair[1], pair[0]))
    table = pa.table(
        {
            "tag": pa.array([tag for tag, _ in ranked], pa.string()),
            "images": pa.array([n for _, n in ranked], pa.int64()),
            "kept": pa.array([tag in allowed for tag, _ in ranked], pa.bool_()),
        }
    )
    write_csv(table, stage.folder / "tags.csv")


def _write_plots(stage: Stage, tags: Counter[str], allowed: Collection[str], sizes: np.ndarray, min_size: int) -> None:
    before, after = (sorted((tags[tag] for tag in some), reverse=True) for some in (tags, allowed))
    curves = {"before": (range(1, len(before) + 1), before), "after": (range(1, len(after) + 1), after)}
    plot_curves(stage.folder / "tags.png", curves, x="tag, by its rank", y="images")
    plot_curves(
        stage.folder / "sizes.png",
        {"before": (SIZE_EDGES, sizes[0]), "by size, score and safety": (SIZE_EDGES, sizes[1])},
        x="short side, px",
        y="images",
        scale=("log", "linear"),
        limits=[min_size or None],
        steps=True,
    )


def _write_samples(stage: Stage) -> None:
    """Draw a row of images for each reason, and one of images that were kept."""
    rows: dict[str, list[SheetImage]] = {}
    for number, part in list(enumerate(stage.source_parts()))[:SAMPLED_PARTS]:
        images = pq.read_table(part, columns=["id", "image"])
        locators = {name: image for name, image in zip(*images.to_pydict().values(), strict=True) if image}
        dropped = pq.read_table(stage.folder / f"dropped-{number:05d}.parquet").to_pydict()
        kept = pq.read_table(part_paths(stage.folder)[number], columns=["id"])["id"].to_pylist()
        for name, reason in [*zip(kept, ["kept"] * len(kept), strict=True), *zip(*dropped.values(), strict=True)]:
            if name in locators and len(row := rows.setdefault(reason, [])) < SAMPLES_PER_REASON:
                row.append(SheetImage(name, locators[name], reason))
    if rows:
        write_contact_sheet(stage.folder / "samples.png", list(rows.values()))
