"""Stage 5: pack the remaining images into training and query shards, with a data card."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.errors import ConfigError, DataError
from stylesim.core.files import write_json, write_text
from stylesim.core.stages.stage import require_positive
from stylesim.core.stages.stage_parts import Part
from stylesim.curation.data_card import data_card
from stylesim.curation.deduplicate.contamination_note import CONTAMINATION
from stylesim.curation.image_locator import read_image_bytes
from stylesim.curation.stage import Stage, read_stage
from stylesim.data.roots import Root
from stylesim.data.sample import Sample
from stylesim.data.shards.packing import PLAN, pack_samples
from stylesim.data.shards.shard_index import INDEX, Index, load_index


def write_shards(
    stage: Stage,
    *,
    max_size: int | None = 384,
    shard_size: int = 1000,
    query_tags: str = "artist:*",
    query_artists: int = 400,
    query_images: int = 10,
) -> dict[str, Any]:
    """Write `train/` and `query/`, each with shards and an index, and README.md, the data card.

    Images are ordered by a digest of their ids. The note about evaluation sets (contamination.json) is copied next to
    the shards; captions and URLs stay in the parts. Source: CSD paper, LAION-Styles and its Stable Diffusion study.

    Args:
        stage: The folder to write to.
        max_size: Images with a longer short side are scaled down to it, in px; null leaves all sizes.
        shard_size: Images per shard; the last shard may have fewer.
        query_tags: Glob of the tags that queries are chosen for.
        query_artists: How many of these tags, the most frequent ones, get queries; 0 writes no queries.
        query_images: Queries per tag; 0 writes no queries. Only tags with at least twice as many images get queries.

    Returns:
        The counts of the stage.

    Raises:
        ConfigError: As for `check_settings` and `Stage.begin`.
        DataError: If no image is left.
    """
    check_settings(max_size, shard_size, query_artists=query_artists, query_images=query_images)
    if (done := stage.begin()) is not None:
        return done
    samples = _read_samples(stage)
    queries = query_split(samples, query_tags, query_artists, query_images)
    splits = {
        "train": [sample for sample in samples if sample.id not in queries],
        "query": [sample for sample in samples if sample.id in queries],
    }
    counts: dict[str, Any] = {"before": len(samples)}
    damaged: dict[str, str] = {}
    indices: dict[str, Index] = {}
    for name, split in splits.items():
        if split:
            damaged |= _pack_split(stage, name, split, max_size=max_size, shard_size=shard_size)
            indices[name] = index = load_index(Root(str(stage.folder / name), name))
            counts |= {f"{name}_images": index.count, f"{name}_shards": len(index.shards)}
            counts |= {f"{name}_tags": len(index.tags), f"{name}_bytes": sum(shard.bytes for shard in index.shards)}
            if (note := _source(stage) / CONTAMINATION).is_file():
                shutil.copyfile(note, stage.folder / name / CONTAMINATION)
    counts |= {"images": sum(index.count for index in indices.values()), "damaged": len(damaged)}
    counts["query_artists"] = len(set(queries.values()))
    _write_parts(stage, damaged)
    write_text(stage.folder / "README.md", data_card(stage, counts, indices, max_size))
    return stage.finish(counts)


def check_settings(
    max_size: int | None, shard_size: int, query_tags: str = "*", query_artists: int = 0, query_images: int = 0
) -> None:
    """Check settings of `write_shards`.

    Raises:
        ConfigError: If a size is less than 1, or a number of queries is negative.
    """
    require_positive("shard.max_size", max_size)
    require_positive("shard.shard_size", shard_size)
    for key, value in (("query_artists", query_artists), ("query_images", query_images)):
        if value < 0:
            raise ConfigError(f"shard.{key} must be 0 or more, got {value}.")


def query_split(samples: Sequence[Sample], glob: str, artists: int, images: int) -> dict[str, str]:
    """Choose the queries.

    The tags are the most frequent ones (ties by name) that match `glob` and have at least `2 * images` images, so that
    training keeps at least one image for each query. Each tag takes its first images in the order of the SHA-1 of their
    ids. An image with several matching tags is never a query, because it would be a query for each of them.

    Args:
        samples: All images.
        glob: Selects the tags that queries are chosen for.
        artists: The maximum number of tags.
        images: Queries per tag.

    Returns:
        The tag that each query was chosen for, by the id of the query.
    """
    if not artists or not images:
        return {}
    by_tag: dict[str, list[str]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: hashlib.sha1(sample.id.encode()).digest()):
        if len(matched := [tag for tag in sample.tags if fnmatchcase(tag, glob)]) == 1:
            by_tag[matched[0]].append(sample.id)
    common = sorted((tag for tag, ids in by_tag.items() if len(ids) >= 2 * images), key=lambda t: (-len(by_tag[t]), t))
    return {name: tag for tag in sorted(common[:artists]) for name in by_tag[tag][:images]}


def _source(stage: Stage) -> Path:
    assert stage.source is not None, "this is not the first stage"
    return stage.source


def _read_samples(stage: Stage) -> list[Sample]:
    table = read_stage(_source(stage), ["id", "image", "tags", "content"])
    samples = [
        Sample(row["id"], Path(row["image"]), row["tags"] or [], row["content"], "")
        for batch in table.to_batches()
        for row in batch.to_pylist()
    ]
    if not samples:
        raise DataError(
            f"{stage.source} has no image left to pack into shards. The summary.json of each earlier stage counts what"
            " it dropped; check for captions that name no artist (untagged), links that were never downloaded"
            " (source.fetch=true) and strict filters."
        )
    return samples


def _pack_split(stage: Stage, name: str, samples: Sequence[Sample], **options: Any) -> dict[str, str]:
    """Pack one split, and return the ids of its damaged images with the reasons.

    They are also written to a hidden file, so that an interrupted stage can continue; `Stage.finish` removes it.
    """
    folder, note = stage.folder / name, stage.folder / f".{name}.partial"
    if note.is_file():
        return json.loads(note.read_text(encoding="utf-8"))
    if (folder / INDEX).is_file() and not (folder / PLAN).exists():
        shutil.rmtree(folder)  # interrupted between the last shard and the note
    damaged = dict(
        pack_samples(samples, folder, processes=stage.processes, show=stage.show, read=read_image_bytes, **options)
    )
    write_json(note, damaged)
    return damaged


def _write_parts(stage: Stage, damaged: Mapping[str, str]) -> None:
    for number, part in enumerate(stage.source_parts()):
        table = pq.read_table(part).replace_schema_metadata()
        ids = table["id"].to_pylist()
        packed = table.filter(pa.array([name not in damaged for name in ids], pa.bool_()))
        reasons = {name: damaged[name] for name in ids if name in damaged}
        dropped = {"id": pa.array(list(reasons), pa.string()), "reason": pa.array(reasons.values(), pa.string())}
        stage.write_part(number, Part(packed, {"images": len(packed)}, pa.table(dropped)))
