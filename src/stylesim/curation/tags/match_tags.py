"""Stage 2: artists, mediums and movements that the captions name."""

# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import json
from collections import Counter
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from stylesim.curation.previews import plot
from stylesim.curation.stage import Piece, Stage, parts
from stylesim.curation.tags.caption_matchers import ExactMatcher, ReferenceMatcher
from stylesim.curation.tags.names import KINDS, read_list, read_lists, shipped
from stylesim.curation.tags.vocabulary import Lists, vocabulary

Matching = Literal["exact", "reference"]
Given = Literal["keep", "add", "replace"]

SAMPLES = 200
"""Captions in samples.csv, tagged and untagged."""


class Recipe(NamedTuple):
    """What a matcher is made of; hashable, and small enough to be sent to other processes."""

    matching: Matching = "exact"
    surnames: Literal["always", "cued", "never"] = "cued"
    artists: str | None = None
    mediums: str | None = None
    movements: str | None = None
    aliases: str | None = None
    cued: str | None = None
    stop: str | None = None

    def lists(self) -> Lists:
        """Raises `StylesimError` where a file, or the package with the names, is not there."""
        extra = {name: read_list(path) if (path := getattr(self, name)) else [] for name in ("aliases", "cued", "stop")}
        names = read_lists({"artist": self.artists, "medium": self.mediums, "movement": self.movements})
        return Lists(names, *(shipped(f"{name}.txt") + lines for name, lines in extra.items()))


def match_tags(
    stage: Stage,
    *,
    matching: Matching = "exact",
    surnames: Literal["always", "cued", "never"] = "cued",
    given: Given = "keep",
    artists: str | None = None,
    mediums: str | None = None,
    movements: str | None = None,
    aliases: str | None = None,
    cued: str | None = None,
    stop: str | None = None,
) -> dict[str, Any]:
    """Give each image the tags that its caption names, as `captions.ExactMatcher` or `ReferenceMatcher` finds them.

    `artists`, `mediums`, `movements`: text files of names in place of clip-interrogator's; `aliases`, `cued`, `stop`:
    files that add to the lists of this package (see `vocabulary.Lists`). `given`: what becomes of tags that the source
    has. Images without a tag stay, with none. Leaves tags.csv (every tag, its images), tags.png, samples.csv.

    Raises:
        StylesimError: As `Stage.begin` does, or where a list is not there.
    """
    recipe = Recipe(matching, surnames, artists, mediums, movements, aliases, cued, stop)
    text = json.dumps(recipe.lists(), sort_keys=True)
    if (done := stage.begin(lists=hashlib.sha256(text.encode()).hexdigest())) is not None:
        return done
    counts = stage.map(partial(_match, recipe=recipe, given=given))
    images = _count(stage)
    per_kind = Counter(tag.partition(":")[0] for tag in images)
    _write(stage, images)
    kinds = {name.removesuffix(".txt"): per_kind[kind] for kind, name in KINDS.items()}
    return stage.finish({**counts, "tags": len(images), **kinds})


@lru_cache(maxsize=1)
def matcher(recipe: Recipe) -> ExactMatcher | ReferenceMatcher:
    """The matcher of a recipe; a process makes it once."""
    kind = ExactMatcher if recipe.matching == "exact" else ReferenceMatcher
    return kind(vocabulary(recipe.lists(), recipe.surnames))


def _match(table: pa.Table, recipe: Recipe, given: Given) -> Piece:
    tags, captions = table["tags"].to_pylist(), table["caption"].fill_null("").to_pylist()
    asked = [n for n, row in enumerate(tags) if row is None or given != "keep"]
    rows = [row or [] for row in tags]
    for n, found in zip(asked, matcher(recipe).find_all([captions[n] for n in asked]), strict=True):
        rows[n] = list(dict.fromkeys([*rows[n], *found])) if given == "add" else found
    counts: Counter[str] = Counter()
    counts["images"] = len(rows)
    counts["untagged"] = sum(not row for row in rows)
    counts["without_caption"] = captions.count("")
    counts["tagged_by_source"] = len(table) - table["tags"].null_count
    column = pa.array(rows, pa.list_(pa.string()))
    return Piece(table.set_column(table.column_names.index("tags"), "tags", column), counts)


def _count(stage: Stage) -> dict[str, int]:
    """Images of each tag, the most frequent first."""
    images: Counter[str] = Counter()
    for part in parts(stage.folder):
        tags = pc.list_flatten(pq.read_table(part, columns=["tags"])["tags"])
        images.update({entry["values"]: entry["counts"] for entry in tags.value_counts().to_pylist()})
    return dict(sorted(images.items(), key=lambda item: (-item[1], item[0])))


def _write(stage: Stage, images: dict[str, int]) -> None:
    frequencies = pa.table({"tag": pa.array(images, pa.string()), "images": pa.array(images.values(), pa.int64())})
    pyarrow.csv.write_csv(frequencies, stage.folder / "tags.csv")
    if images:
        curve = {"tags": (range(1, len(images) + 1), list(images.values()))}
        plot(stage.folder / "tags.png", curve, x="tag, by its rank", y="images")
    pyarrow.csv.write_csv(_samples(parts(stage.folder)), stage.folder / "samples.csv")


def _samples(found: list[Path]) -> pa.Table:
    """The first captions of each part, as many as make up SAMPLES, for the eye to check."""
    some = -(-SAMPLES // max(len(found), 1))
    tables = [pq.read_table(part, columns=["id", "caption", "tags"]).slice(0, some) for part in found[:SAMPLES]]
    table = pa.concat_tables([t.replace_schema_metadata() for t in tables])
    return table.set_column(2, "tags", pc.binary_join(table["tags"], "; "))
