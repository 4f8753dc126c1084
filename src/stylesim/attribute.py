"""Attribute images to the artists or styles of a gallery, with intervals, probabilities and a copy check.

    stylesim attribute queries=/my/images gallery=/my/works checkpoint=outputs/.../checkpoints/best.safetensors
    stylesim attribute queries=my_descriptors gallery=their_descriptors label='artist:*'    what `embed` wrote
    stylesim attribute queries=/my/images gallery=works.db copy_encoder.weights=sscd_disc_mixup.torchvision.pt

Each image is attributed to a label, ambiguous between labels, or by none of them. How often that is right is measured
on the gallery's own works, each left out in turn. The copy check is a second verdict with an encoder of its own; it
never changes the first.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from omegaconf import DictConfig
from pydantic import Field, NonNegativeInt, PositiveInt

from stylesim.data.work_facts import find_work_facts, known_facts
from stylesim.runtime.copy_encoder import UNAVAILABLE, load_copy_encoder
from stylesim.runtime.embedding_run import (
    descriptor_folders,
    embed_roots,
    find_images,
    image_roots,
    is_descriptor_set,
)
from stylesim.runtime.existence_checks import check_encoders, check_images, find_database
from stylesim.runtime.launch import run
from stylesim.runtime.settings import EmbeddingSettings

if TYPE_CHECKING:
    from stylesim.core.images import ImageLike
    from stylesim.retrieval.descriptor_set import DescriptorSet
    from stylesim.scoring.copies.copy_check import CopyCheck, FindImages

SIDES = ("queries", "gallery")

log = logging.getLogger(__name__)


class Settings(EmbeddingSettings):
    """The keys of `stylesim attribute`."""

    queries: str | list[str] = Field(
        description="A folder, a table of paths, shards or descriptors that `embed` wrote; or a list of image sources."
    )
    gallery: str | list[str] = Field(
        description="The works, named in the same ways, or a style database: a folder or postgresql://... (see search)."
    )
    label: str = Field(
        "*", description="Which tags are labels: a glob such as artist:*. In a folder, sub-folders are the tags."
    )
    measure: Literal["cosine", "csls", "csls_label_aware", "csls_whitened"] = Field(
        "csls_whitened",
        description="Similarity of an image and a work; csls_label_aware ignores neighbours of the same label,"
        " csls_whitened gives directions less weight in which the works of one label differ.",
    )
    pool: Literal["nearest", "pooled"] = Field("nearest", description="Score a label by its nearest works, or by all.")
    nearest_works: PositiveInt | None = Field(
        None,
        description="Number of nearest works, to whose mean labels with fewer are shrunk; null is the square root of"
        " the median label's number of works, at most 10.",
    )
    csls_k: PositiveInt = Field(10, description="Number of neighbours in CSLS.")
    distinct_content: bool = Field(False, description="Leave out works that show the same content as the image.")
    ranks: PositiveInt = Field(5, description="Number of labels listed for each image.")
    alpha: float = Field(
        0.1, description="Largest p-value of an attribution: how often an image by none of the labels may get one."
    )
    confidence: float = Field(0.9, description="Probability of being right that an attribution needs.")
    closed: bool = Field(False, description="Every image is known to be by one of the labels.")
    calibration_works: PositiveInt = Field(
        2000, description="Largest number of works that are attributed for calibration."
    )
    copy_candidate: float = Field(0.5, description="Copy similarity from which a work may have been copied.")
    copy_near_duplicate: float = Field(0.75, description="Copy similarity of a near-duplicate.")
    seed: NonNegativeInt = Field(0, description="Seed of the bootstrap and of the works for calibration.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Attribute `queries` to the labels of `gallery`, check them for copies, and return the metrics.

    Writes into `cfg.run_dir`: `attribution.csv`, `attribution.json`, `attribution.html`, `copies.csv` (if copies were
    checked), and the `descriptors/` of images that were not embedded before.

    Raises:
        ConfigError: If images are missing, or a number is out of range.
        WeightsError: If weights of the style encoder are missing, or its head is untrained.
        DataError: If the gallery has fewer than two labels, or two sets of descriptors are of different encoders.
    """
    from stylesim.scoring.attribution.attribution_verdict import VerdictRule  # imports no torch

    VerdictRule(cfg.alpha, cfg.confidence, cfg.closed)  # refuses a wrong value before a model is loaded
    database = find_database(cfg.gallery)
    roots = {side: check_images(cfg, side) for side in SIDES if side == "queries" or database is None}
    if not all(map(is_descriptor_set, roots.values())):
        check_encoders(cfg)
    from stylesim.report.pages.attribution_report import write_attribution_report
    from stylesim.report.tables.attribution_tables import flat_metrics, write_attribution_tables
    from stylesim.retrieval.descriptor_set import DescriptorSet
    from stylesim.scoring.attribution.attributor import attribute

    run_dir, folders = Path(cfg.run_dir), descriptor_folders(cfg, roots)
    if database is not None:
        folders["gallery"] = _export(database, run_dir / "descriptors" / "gallery")
    sets = {side: DescriptorSet.load(folder) for side, folder in folders.items()}
    keys = ("label", "measure", "pool", "nearest_works", "csls_k", "distinct_content", "ranks")
    keys += ("alpha", "confidence", "closed", "calibration_works", "seed")
    attribution = attribute(sets["queries"], sets["gallery"], **{key: cfg[key] for key in keys})
    find: dict[str, FindImages] = {side: partial(find_images, folder) for side, folder in folders.items()}
    find |= {} if database is None else {"gallery": partial(_exported_thumbnails, folders["gallery"])}
    copies = _check_copies(cfg, sets, folders, find, database)
    works = {*attribution.table["nearest"]}
    if not isinstance(copies, str):
        works |= set(copies.table[["match", "tile_match"]].stack())
    roots_of_works = image_roots(folders["gallery"])
    facts = find_work_facts(roots_of_works, works) if database is None else _exported_facts(folders["gallery"], works)
    write_attribution_tables(run_dir, attribution, copies, facts)
    page = write_attribution_report(run_dir, attribution, copies, sets, find, facts)
    print(f"{attribution}\n{copies if isinstance(copies, str) else copies.summary}\nreport: {page}")
    return flat_metrics(attribution, copies)


def _export(database: str, folder: Path) -> Path:
    """Write the works of a database as a descriptor set, with their other columns beside it."""
    from stylesim.retrieval.database.style_database import StyleDatabase

    with StyleDatabase.open(database) as opened:
        opened.export(folder)
    return folder


def _exported_rows(folder: Path, ids: Collection[str]) -> dict[str, dict[str, Any]]:
    import pandas as pd

    from stylesim.retrieval.database.export_items import METADATA

    table = pd.read_parquet(folder / METADATA, filters=[("id", "in", set(ids))]) if ids else pd.DataFrame()
    return {row["id"]: row for row in table.to_dict("records")}


def _exported_thumbnails(folder: Path, ids: Collection[str]) -> dict[str, ImageLike]:
    rows = _exported_rows(folder, ids)
    return {id: row["thumbnail"] for id, row in rows.items() if isinstance(row.get("thumbnail"), bytes)}


def _exported_facts(folder: Path, ids: Collection[str]) -> dict[str, dict[str, str]]:
    facts = {id: known_facts(row) for id, row in _exported_rows(folder, ids).items()}
    return {id: known for id, known in facts.items() if known}


def _check_copies(
    cfg: DictConfig,
    sets: dict[str, DescriptorSet],
    folders: dict[str, Path],
    find: dict[str, FindImages],
    database: str | None,
) -> CopyCheck | str:
    """Return the copy check, or why it is not available."""
    if cfg.get("copy_encoder") is not None and not all(find[side](sets[side].ids[:1]) for side in SIDES):
        return f"{UNAVAILABLE}: the images were not found where they were embedded"
    from stylesim.data.sample import Sample
    from stylesim.evaluation.embed import embed
    from stylesim.scoring.copies.copy_check import check_copies

    encoder = load_copy_encoder(cfg)
    if isinstance(encoder, str):
        return encoder
    folder = Path(cfg.run_dir) / "descriptors" / "gallery_for_copies"
    if database is None:
        works = embed_roots(encoder, image_roots(folders["gallery"]), folder, cfg)
    else:
        log.warning("The works are compared for copies by the thumbnails that the database holds.")
        thumbnails = find["gallery"](sets["gallery"].ids)
        samples = [Sample(id, image) for id, image in thumbnails.items()]  # type: ignore[arg-type]
        works = embed(encoder, samples, folder, batch_size=cfg.batch_size, device=cfg.device)
    thresholds = {"candidate": cfg.copy_candidate, "near_duplicate": cfg.copy_near_duplicate}
    ids = sets["queries"].ids
    return check_copies(encoder, ids, find["queries"], works, find["gallery"], **thresholds, seed=cfg.seed)


if __name__ == "__main__":
    run("attribute")
