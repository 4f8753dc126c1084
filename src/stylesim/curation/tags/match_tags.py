"""Stage 2: tag images with the artists, mediums and movements that their captions name."""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stylesim.core.files import sha256_of_text
from stylesim.core.stages.stage_parts import Part, part_paths, write_csv
from stylesim.curation.previews import plot_curves
from stylesim.curation.stage import Stage
from stylesim.curation.tags.caption_matchers import ExactMatcher, ReferenceMatcher
from stylesim.curation.tags.name_lists import KINDS, packaged_list, read_list, read_name_lists
from stylesim.curation.tags.vocabulary import Lists, Surnames, build_vocabulary

Matching = Literal["exact", "reference"]
Given = Literal["keep", "add", "replace"]

SAMPLES = 200
"""Captions in samples.csv, with and without tags."""


class MatcherSettings(NamedTuple):
    """The settings of a matcher: hashable, and small enough to be sent to other processes."""

    matching: Matching = "exact"
    surnames: Surnames = "cued"
    artists: str | None = None
    mediums: str | None = None
    movements: str | None = None
    aliases: str | None = None
    cued: str | None = None
    stop: str | None = None

    def lists(self) -> Lists:
        """Read all lists.

        Raises:
            ConfigError: If a file, or the package with the published names, is missing.
        """
        added = {name: read_list(path) if (path := getattr(self, name)) else [] for name in ("aliases", "cued", "stop")}
        names = read_name_lists({"artist": self.artists, "medium": self.mediums, "movement": self.movements})
        return Lists(names, *(packaged_list(f"{name}.txt") + lines for name, lines in added.items()))


def match_tags(
    stage: Stage,
    *,
    matching: Matching = "exact",
    surnames: Surnames = "cued",
    given: Given = "keep",
    artists: str | None = None,
    mediums: str | None = None,
    movements: str | None = None,
    aliases: str | None = None,
    cued: str | None = None,
    stop: str | None = None,
) -> dict[str, Any]:
    """Give each image the tags that its caption names, as found by `ExactMatcher` or `ReferenceMatcher`.

    Images without a tag are kept, with an empty list. The stage folder also receives tags.csv (every tag and its number
    of images), tags.png and samples.csv.

    Args:
        stage: The folder to write to.
        matching: exact matches whole words, prefers the longest match and uses aliases; reference matches as the
            published tag strings imply.
        surnames: When a surname alone counts; cued: only beside a word such as "by" or "style".
        given: Keep the tags that the source already has, add to them, or replace them.
        artists: Text file with one name per line; null uses clip-interrogator's list.
        mediums: The same for mediums.
        movements: The same for movements.
        aliases: Text file of additional aliases, in lines `name: another, and another`.
        cued: The same for spellings that are also ordinary words, and count only beside a word such as "by".
        stop: Text file of additional spellings that never count, one per line.

    Returns:
        The counts of the stage.

    Raises:
        ConfigError: If a list is missing; also as for `Stage.begin`.
    """
    settings = MatcherSettings(matching, surnames, artists, mediums, movements, aliases, cued, stop)
    lists = sha256_of_text(json.dumps(settings.lists(), sort_keys=True))
    if (done := stage.begin(lists=lists)) is not None:
        return done
    counts = stage.map_parts(partial(_match_part, settings=settings, given=given))
    images = _images_per_tag(stage)
    per_kind = Counter(tag.partition(":")[0] for tag in images)
    _write_previews(stage, images)
    kinds = {name.removesuffix(".txt"): per_kind[kind] for kind, name in KINDS.items()}
    return stage.finish({**counts, "tags": len(images), **kinds})


def check_settings(matching: Matching, surnames: Surnames, given: Given, **lists: str | None) -> None:
    """Check settings of `match_tags`: whether its lists can be read.

    Raises:
        ConfigError: If a list is missing or empty.
    """
    MatcherSettings(matching, surnames, **lists).lists()


@lru_cache(maxsize=1)
def load_matcher(settings: MatcherSettings) -> ExactMatcher | ReferenceMatcher:
    """Build a matcher, once per process."""
    matcher = ExactMatcher if settings.matching == "exact" else ReferenceMatcher
    return matcher(build_vocabulary(settings.lists(), settings.surnames))


def _match_part(table: pa.Table, settings: MatcherSettings, given: Given) -> Part:
    source_tags, captions = table["tags"].to_pylist(), table["caption"].fill_null("").to_pylist()
    searched = [n for n, tags in enumerate(source_tags) if tags is None or given != "keep"]
    tags = [row or [] for row in source_tags]
    for n, matched in zip(searched, load_matcher(settings).find_all([captions[n] for n in searched]), strict=True):
        tags[n] = list(dict.fromkeys([*tags[n], *matched])) if given == "add" else matched
    counts: Counter[str] = Counter()
    counts["images"] = len(tags)
    counts["untagged"] = sum(not row for row in tags)
    counts["without_caption"] = captions.count("")
    counts["tagged_by_source"] = len(table) - table["tags"].null_count
    column = pa.array(tags, pa.list_(pa.string()))
    return Part(table.set_column(table.column_names.index("tags"), "tags", column), counts)


def _images_per_tag(stage: Stage) -> dict[str, int]:
    """Return the number of images of each tag, the most frequent tag first."""
    images: Counter[str] = Counter()
    for part in part_paths(stage.folder):
        tags = pc.list_flatten(pq.read_table(part, columns=["tags"])["tags"])
        images.update({entry["values"]: entry["counts"] for entry in tags.value_counts().to_pylist()})
    return dict(sorted(images.items(), key=lambda item: (-item[1], item[0])))


def _write_previews(stage: Stage, images: Mapping[str, int]) -> None:
    frequencies = {"tag": pa.array(images, pa.string()), "images": pa.array(images.values(), pa.int64())}
    write_csv(pa.table(frequencies), stage.folder / "tags.csv")
    if images:
        curve = {"tags": (range(1, len(images) + 1), list(images.values()))}
        plot_curves(stage.folder / "tags.png", curve, x="tag, by its rank", y="images")
    write_csv(_sample_captions(part_paths(stage.folder)), stage.folder / "samples.csv")


def _sample_captions(paths: Sequence[Path]) -> pa.Table:
    """Return the first captions of each part, SAMPLES in total, for visual inspection."""
    per_part = -(-SAMPLES // max(len(paths), 1))
    tables = [pq.read_table(path, columns=["id", "caption", "tags"]).slice(0, per_part) for path in paths[:SAMPLES]]
    table = pa.concat_tables([t.replace_schema_metadata() for t in tables])
    return table.set_column(2, "tags", pc.binary_join(table["tags"], "; "))
