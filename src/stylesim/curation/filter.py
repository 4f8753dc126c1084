"""Stage 3: images that are too small, too plain or not safe go, and tags that say too much or too little."""

# pyright: reportAttributeAccessIssue=false
# pyarrow makes its compute functions when it is imported.

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from stylesim.curation.previews import Picture, contact_sheet, plot
from stylesim.curation.stage import Piece, Stage, parts
from stylesim.curation.tags.tag_pairs import tags_of, with_tags

READ = ["width", "height", "aesthetic", "nsfw", "tags"]
REASONS = ("small", "low_aesthetic", "nsfw", "untagged", "only_dropped_tags")
SHOWN = 9
"""Images of a reason on the sheet of samples, of the first PARTS_SHOWN parts."""
PARTS_SHOWN = 20
EDGES = np.unique(np.geomspace(16, 16384, 49).round())


class Rules(NamedTuple):
    """What an image has to be, whatever its tags are."""

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
    """Drop images by size, score and safety, then tags by how many of the images left have them, then what has none.

    `max_tag_images`, `min_tag_images`: a tag of more or fewer images is taken off them, and an image that loses its
    last tag goes too (`only_dropped_tags`). Once is enough: an image goes only with its last tag, so that no other tag
    loses one. `min_size`: px of the short side. `nsfw`: labels of the column that are dropped, in any case (["NSFW",
    "UNSURE"]), or the probability from which on it is.

    What is not known passes, and is counted: `size_unknown`, `aesthetic_unknown`, `nsfw_unknown`. Leaves tags.csv
    (every tag, its images, kept or not), tags.png, sizes.png, samples.png. Source: CSD paper, LAION-Styles, where
    `max_tag_images` is 100,000. Raises StylesimError as `Stage.begin` does.
    """
    if (done := stage.begin()) is not None:
        return done
    rules = Rules(min_size, min_aesthetic, nsfw)
    tags, sizes = _count(stage, rules)
    kept = [tag for tag, n in tags.items() if min_tag_images <= n <= (max_tag_images or n)]
    counts = stage.map(partial(_filter, rules=rules, allowed=kept))
    tally = {name: counts[name] for name in ("before", "images", *REASONS)} | counts
    tally |= {
        "tags_before": len(tags),
        "tags": len(kept),
        "tags_over": sum(n > max_tag_images for n in tags.values()) if max_tag_images else 0,
        "tags_under": sum(n < min_tag_images for n in tags.values()),
    }
    _write_tags(stage, tags, set(kept))
    _plot(stage, tags, kept, sizes, min_size)
    _write_samples(stage)
    over = {tag: n for tag, n in tags.most_common() if max_tag_images and n > max_tag_images}
    return stage.finish(tally, over_represented=over)


def refused(table: pa.Table, rules: Rules) -> pa.Array:
    """The first rule that each row breaks (small, low_aesthetic, nsfw, untagged), null where it breaks none."""
    short = pc.min_element_wise(table["width"], table["height"], skip_nulls=False)
    broken = {"small": pc.less(short, rules.min_size)}
    if rules.min_aesthetic is not None:
        broken["low_aesthetic"] = pc.less(table["aesthetic"], rules.min_aesthetic)
    if rules.nsfw is not None:
        broken["nsfw"] = _unsafe(table["nsfw"], rules.nsfw)
    broken["untagged"] = pc.equal(pc.coalesce(pc.list_value_length(table["tags"]), 0), 0)
    conditions = pc.make_struct(*(pc.fill_null(mask, False) for mask in broken.values()), field_names=list(broken))
    return pc.case_when(conditions, *(pa.scalar(name) for name in broken))


def _unsafe(column: pa.ChunkedArray, nsfw: float | Sequence[str]) -> pa.ChunkedArray:
    """Null where the column does not say what is asked for."""
    if isinstance(nsfw, float | int):
        numbers = pc.if_else(pc.match_substring_regex(column, r"^[0-9]*\.?[0-9]+$"), column, None)
        return pc.greater_equal(numbers.cast(pa.float64()), nsfw)
    return pc.is_in(pc.utf8_upper(column), value_set=pa.array([label.upper() for label in nsfw]))


def _count(stage: Stage, rules: Rules) -> tuple[Counter[str], np.ndarray]:
    """Images of each tag among those that break no rule; and how many images, all and those, are of which size."""
    counts: Counter[str] = Counter()
    sizes = np.zeros((2, len(EDGES) - 1), dtype=np.int64)
    for part in stage.pieces():
        table = pq.read_table(part, columns=READ)
        passing = table.filter(pc.is_null(refused(table, rules)))
        for row, some in enumerate((table, passing)):
            short = pc.min_element_wise(some["width"], some["height"], skip_nulls=False).drop_null().to_numpy()
            sizes[row] += np.histogram(short.clip(EDGES[0], EDGES[-1]), EDGES)[0]
        for entry in tags_of(passing)[1].value_counts().to_pylist():
            counts[entry["values"]] += entry["counts"]
    return Counter(dict(sorted(counts.items()))), sizes


def _filter(table: pa.Table, *, rules: Rules, allowed: Collection[str]) -> Piece:
    reasons = refused(table, rules)
    rows, tags = tags_of(table)
    good = pc.is_in(tags, value_set=pa.array(allowed, pa.string()))
    thinned = with_tags(table, rows[good.to_numpy(zero_copy_only=False)], tags.filter(good))
    lost = pc.equal(pc.list_value_length(thinned["tags"]), 0)
    reasons = pc.coalesce(reasons, pc.if_else(lost, pa.scalar("only_dropped_tags"), pa.scalar(None, pa.string())))
    kept = pc.is_null(reasons)
    dropped = pa.table({"id": table["id"], "reason": reasons}).filter(pc.invert(kept))
    counts = {"before": len(table), "images": len(table) - len(dropped)}
    counts |= Counter(dropped["reason"].to_pylist())
    counts |= {f"{name}_unknown": column.null_count for name, column in _asked(table, rules)}
    return Piece(thinned.filter(kept), counts, dropped)


def _asked(table: pa.Table, rules: Rules) -> Iterator[tuple[str, pa.ChunkedArray]]:
    """The columns that the rules ask for, null where they get no answer."""
    if rules.min_size:
        yield "size", pc.min_element_wise(table["width"], table["height"], skip_nulls=False)
    if rules.min_aesthetic is not None:
        yield "aesthetic", table["aesthetic"]
    if rules.nsfw is not None:
        known = table["nsfw"] if not isinstance(rules.nsfw, float | int) else _unsafe(table["nsfw"], rules.nsfw)
        yield "nsfw", known


def _write_tags(stage: Stage, tags: Counter[str], kept: Collection[str]) -> None:
    ranked = sorted(tags.items(), key=lambda pair: (-pair[1], pair[0]))
    table = pa.table(
        {
            "tag": pa.array([tag for tag, _ in ranked], pa.string()),
            "images": pa.array([n for _, n in ranked], pa.int64()),
            "kept": pa.array([tag in kept for tag, _ in ranked], pa.bool_()),
        }
    )
    pyarrow.csv.write_csv(table, stage.folder / "tags.csv")


def _plot(stage: Stage, tags: Counter[str], kept: Collection[str], sizes: np.ndarray, min_size: int) -> None:
    before, after = (sorted((tags[tag] for tag in some), reverse=True) for some in (tags, kept))
    curves = {"before": (range(1, len(before) + 1), before), "after": (range(1, len(after) + 1), after)}
    plot(stage.folder / "tags.png", curves, x="tag, by its rank", y="images")
    plot(
        stage.folder / "sizes.png",
        {"before": (EDGES, sizes[0]), "by size, score and safety": (EDGES, sizes[1])},
        x="short side, px",
        y="images",
        scale=("log", "linear"),
        limits=[min_size or None],
        steps=True,
    )


def _write_samples(stage: Stage) -> None:
    """A row of images for each reason, and one of what was kept."""
    rows: dict[str, list[Picture]] = {}
    for number, part in list(enumerate(stage.pieces()))[:PARTS_SHOWN]:
        images = pq.read_table(part, columns=["id", "image"])
        at_hand = {name: image for name, image in zip(*images.to_pydict().values(), strict=True) if image}
        dropped = pq.read_table(stage.folder / f"dropped-{number:05d}.parquet").to_pydict()
        kept = pq.read_table(parts(stage.folder)[number], columns=["id"])["id"].to_pylist()
        for name, reason in [*zip(kept, ["kept"] * len(kept), strict=True), *zip(*dropped.values(), strict=True)]:
            if name in at_hand and len(row := rows.setdefault(reason, [])) < SHOWN:
                row.append(Picture(name, at_hand[name], reason))
    if rows:
        contact_sheet(stage.folder / "samples.png", list(rows.values()))
