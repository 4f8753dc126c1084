"""Stage 5: the images that are left as shards to train on, some of them apart as queries, and a data card."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_json
from stylesim.curation.data_card import data_card
from stylesim.curation.deduplicate.contamination_note import CONTAMINATION
from stylesim.curation.stage import Piece, Stage, open_image_at, read_stage
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
    """Write `train/` and `query/`, shards with an index each, and README.md, the data card.

    Images whose short side is over `max_size` px are scaled down to it (`pack_samples`); their order is that of a
    digest of their ids, and every shard but the last has `shard_size` of them. Queries are `query_images` images of
    each of the `query_artists` commonest tags that match `query_tags` (see `query_split`); 0 of either leaves them out.

    What the images were cleared of goes with the shards (contamination.json); the parts keep captions and URLs. Source:
    CSD paper, LAION-Styles and its Stable Diffusion study. Raises StylesimError as `Stage.begin` does, and where no
    image is left.
    """
    if shard_size < 1 or (max_size is not None and max_size < 1):
        raise StylesimError(f"shard.shard_size={shard_size} and shard.max_size={max_size} (px) are at least 1.")
    if (done := stage.begin()) is not None:
        return done
    assert stage.source is not None
    table = read_stage(stage.source, ["id", "image", "tags", "content"])
    items = [
        Sample(row["id"], Path(row["image"]), row["tags"] or [], row["content"], "")
        for batch in table.to_batches()
        for row in batch.to_pylist()
    ]
    if not items:
        raise StylesimError(
            f"{stage.source} has no image left to shard. The summary.json of each stage before counts what it dropped:"
            " captions that name nobody (untagged), links that were never fetched (source.fetch=true), strict filters."
        )
    queries = query_split(items, query_tags, query_artists, query_images)
    splits = {
        "train": [item for item in items if item.id not in queries],
        "query": [item for item in items if item.id in queries],
    }
    counts: dict[str, Any] = {"before": len(items)}
    damaged: dict[str, str] = {}
    indices: dict[str, Index] = {}
    for name, some in splits.items():
        if some:
            damaged |= _packed(stage, name, some, max_size=max_size, shard_size=shard_size)
            indices[name] = index = load_index(Root(str(stage.folder / name), name))
            counts |= {f"{name}_images": index.count, f"{name}_shards": len(index.shards)}
            counts |= {f"{name}_tags": len(index.tags), f"{name}_bytes": sum(shard.bytes for shard in index.shards)}
            if (note := stage.source / CONTAMINATION).is_file():
                shutil.copyfile(note, stage.folder / name / CONTAMINATION)
    counts |= {"images": sum(index.count for index in indices.values()), "damaged": len(damaged)}
    counts["query_artists"] = len(set(queries.values()))
    _write_parts(stage, damaged)
    (stage.folder / "README.md").write_text(data_card(stage, counts, indices, max_size))
    return stage.finish(counts)


def query_split(items: Sequence[Sample], glob: str, artists: int, images: int) -> dict[str, str]:
    """Ids of the queries, each with the tag it stands for.

    The tags are the commonest (of equally common ones the first by name) among those with twice as many images, so that
    training keeps at least one for each query, and each takes the first by the SHA-1 of their ids. An image with
    several such tags is none of these: it would query for both.
    """
    if not artists or not images:
        return {}
    by_tag: dict[str, list[str]] = defaultdict(list)
    for item in sorted(items, key=lambda item: hashlib.sha1(item.id.encode()).digest()):
        if len(matched := [tag for tag in item.tags if fnmatchcase(tag, glob)]) == 1:
            by_tag[matched[0]].append(item.id)
    common = sorted((tag for tag, ids in by_tag.items() if len(ids) >= 2 * images), key=lambda t: (-len(by_tag[t]), t))
    return {name: tag for tag in sorted(common[:artists]) for name in by_tag[tag][:images]}


def _packed(stage: Stage, name: str, items: Sequence[Sample], **options: Any) -> dict[str, str]:
    """Pack one split; ids and reasons of what was damaged, noted until the stage is done."""
    folder, note = stage.folder / name, stage.folder / f".{name}.partial"
    if note.is_file():
        return json.loads(note.read_text())
    if (folder / INDEX).is_file() and not (folder / PLAN).exists():
        shutil.rmtree(folder)  # stopped between the last shard and the note
    damaged = dict(
        pack_samples(items, folder, processes=stage.processes, show=stage.show, read=open_image_at, **options)
    )
    write_json(note, damaged)
    return damaged


def _write_parts(stage: Stage, damaged: dict[str, str]) -> None:
    for number, part in enumerate(stage.pieces()):
        table = pq.read_table(part).replace_schema_metadata()
        ids = table["id"].to_pylist()
        kept = table.filter(pa.array([name not in damaged for name in ids], pa.bool_()))
        lost = {name: damaged[name] for name in ids if name in damaged}
        dropped = pa.table({"id": pa.array(list(lost), pa.string()), "reason": pa.array(lost.values(), pa.string())})
        stage.write(number, Piece(kept, {"images": len(kept)}, dropped))
