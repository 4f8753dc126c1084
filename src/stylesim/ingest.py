"""Add images or descriptors to a style database, which is created if there is none.

    stylesim ingest db=works.db images=/my/works checkpoint=outputs/.../checkpoints/best.safetensors
    stylesim ingest db=works.db images=/my/works.csv             a table of paths; its other columns become metadata
    stylesim ingest db=works.db descriptors=my_descriptors       what `embed` wrote; no model is loaded
    stylesim ingest db=postgresql://me@server/art#works images=/my/works metadata=/my/metadata.csv

The database is a folder (LanceDB), or a schema on a PostgreSQL server with pgvector. After an interruption, the same
command continues: images that the database has are skipped.
"""

from __future__ import annotations

import logging
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig
from pydantic import Field, NonNegativeInt

from stylesim.core.errors import ConfigError
from stylesim.core.files import atomic_path
from stylesim.data.roots import Root
from stylesim.runtime.embedding_run import DAMAGED_SHOWN, load_model
from stylesim.runtime.existence_checks import check_encoders, check_images
from stylesim.runtime.launch import run
from stylesim.runtime.settings import PLAIN_TEXT, EmbeddingSettings

if TYPE_CHECKING:
    import pandas as pd

    from stylesim.retrieval.database.style_database import StyleDatabase

log = logging.getLogger(__name__)


class Settings(EmbeddingSettings):
    """The keys of `stylesim ingest`."""

    db: str = Field(
        description="A folder, or postgresql://USER@HOST/DATABASE#SCHEMA (the password in PGPASSWORD).",
        json_schema_extra=PLAIN_TEXT,
    )
    images: str | list[str] | None = Field(
        None, description="A folder, a table of paths (.csv, .tsv, .parquet), shards with an index.json, or a list."
    )
    descriptors: str | list[str] | None = Field(
        None, description="Folders that `embed` or `StyleDatabase.export` wrote, instead of images."
    )
    metadata: str | None = Field(None, description="A table with a column id, whose other columns are stored as well.")
    existing: Literal["skip", "replace"] = Field("skip", description="What to do with ids that the database has.")
    thumbnail: NonNegativeInt = Field(160, description="Longer side of the stored thumbnails in pixels; 0 stores none.")
    exact_below: NonNegativeInt = Field(
        200_000, description="With fewer items than this, no index is built, and searches compare all of them."
    )


def main(cfg: DictConfig) -> dict[str, float]:
    """Add `cfg.images` or `cfg.descriptors` to `cfg.db` and return how many were added, present and damaged.

    Raises:
        ConfigError: Unless one of `images` and `descriptors` is given, or if what they name does not exist.
        WeightsError: If weights are missing, or the encoder's head is untrained.
        DataError: If the database holds descriptors of another encoder, or another process is writing to it.
    """
    if (cfg.images is None) == (cfg.descriptors is None):
        raise ConfigError("Give either images=PATH or descriptors=FOLDER.")
    location = expanduser(cfg.db)
    roots = check_images(cfg, "images" if cfg.descriptors is None else "descriptors")
    from stylesim.data.image_metadata import read_metadata

    metadata = read_metadata(Path(expanduser(cfg.metadata))) if cfg.metadata else None
    if cfg.descriptors is None:
        check_encoders(cfg)
        database, counts = _add_images(cfg, location, roots, metadata)
    else:
        database, counts = _add_descriptors(cfg, location, roots, metadata)
    with database:
        index = database.optimize(exact_below=cfg.exact_below)
        counts |= {"items": len(database)}
        print(
            f"{counts['added']:,} added, {counts['present']:,} already there, {counts['damaged']:,} damaged;"
            f" {location} has {counts['items']:,} items",
            flush=True,
        )
    if index is not None:
        print(f"index: {index['kind']}, recall@10 {index['recall@10']:.3f}", flush=True)
        counts |= {"recall@10": index["recall@10"]}
    return counts


def _add_images(
    cfg: DictConfig, location: str, roots: list[Root], metadata: pd.DataFrame | None
) -> tuple[StyleDatabase, dict[str, Any]]:
    import pandas as pd

    from stylesim.data.image_metadata import metadata_of_image_table
    from stylesim.data.open_samples import open_samples
    from stylesim.evaluation.add_images import add_images, open_database

    samples = open_samples(roots)
    tables = [
        metadata_of_image_table(root.folder, root.name) for root in roots if root.folder and root.folder.is_file()
    ]
    # Values of the metadata take precedence over those of the tables of paths.
    metadata = _first_of_each_id([table for table in (metadata, *tables) if table is not None])
    encoder = load_model(cfg)
    database = open_database(location, encoder, flips=cfg.flips)
    done = add_images(
        database,
        encoder,
        samples,
        metadata,
        thumbnail=cfg.thumbnail,
        existing=cfg.existing,
        batch_size=cfg.batch_size,
        device=cfg.device,
        precision=cfg.precision,
        accept_damaged=cfg.accept_damaged,
    )
    if done.damaged:
        table = Path(cfg.run_dir) / "damaged.csv"
        with atomic_path(table) as partial:
            damaged = pd.DataFrame(done.damaged, columns=["id", "reason"])
            damaged.to_csv(partial, index=False, errors="backslashreplace")
        for name, reason in done.damaged[:DAMAGED_SHOWN]:
            log.warning("left out %s: %s", name, reason)
        log.warning("%s images were left out; %s names all of them", f"{len(done.damaged):,}", table)
    return database, {"added": done.added, "present": done.present, "damaged": len(done.damaged)}


def _add_descriptors(
    cfg: DictConfig, location: str, roots: list[Root], metadata: pd.DataFrame | None
) -> tuple[StyleDatabase, dict[str, Any]]:
    import pandas as pd

    from stylesim.retrieval.database.export_items import METADATA
    from stylesim.retrieval.database.style_database import StyleDatabase
    from stylesim.retrieval.descriptor_set import DescriptorSet

    sets = [DescriptorSet.load(expanduser(root.location)) for root in roots]
    first = sets[0]
    if StyleDatabase.exists(location):
        database = StyleDatabase.open(location)
    else:
        database = StyleDatabase.create(location, first.meta, first.descriptors.shape[1])
    counts = {"added": 0, "present": 0, "damaged": 0}
    for root, descriptors in zip(roots, sets, strict=True):
        exported = Path(expanduser(root.location)) / METADATA
        tables = [metadata] if metadata is not None else []
        tables += [pd.read_parquet(exported)] if exported.is_file() else []
        added = database.add(descriptors, _first_of_each_id(tables), existing=cfg.existing)
        counts["added"] += added
        counts["present"] += len(descriptors) - added
    return database, counts


def _first_of_each_id(tables: list[pd.DataFrame]) -> pd.DataFrame | None:
    """Join tables of metadata: each value is that of the first table which has one."""
    joined = tables[0].set_index("id") if tables else None
    for table in tables[1:]:
        assert joined is not None
        joined = joined.combine_first(table.set_index("id"))
    return None if joined is None else joined.reset_index()


if __name__ == "__main__":
    run("ingest")
