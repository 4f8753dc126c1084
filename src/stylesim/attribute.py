"""Attribute images to the artists or styles of a gallery, with intervals, probabilities and a copy check.

    stylesim attribute queries=/my/images gallery=/my/works checkpoint=outputs/.../checkpoints/best.safetensors
    stylesim attribute queries=my_descriptors gallery=their_descriptors label='artist:*'    what `embed` wrote
    stylesim attribute queries=/my/images gallery=works.csv copy_encoder.weights=sscd_disc_mixup.torchvision.pt

Each image is attributed to a label, ambiguous between labels, or by none of them. How often that is right is measured
on the gallery's own works, each left out in turn. The copy check is a second verdict with an encoder of its own; it
never changes the first.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hydra.utils import instantiate
from omegaconf import DictConfig
from pydantic import Field, NonNegativeInt, PositiveInt

from stylesim.core.errors import WeightsError
from stylesim.data.work_facts import find_work_facts
from stylesim.runtime.embedding_run import (
    descriptor_folders,
    embed_roots,
    find_images,
    image_roots,
    is_descriptor_set,
)
from stylesim.runtime.existence_checks import check_encoders, check_images
from stylesim.runtime.launch import run
from stylesim.runtime.settings import EmbeddingSettings

if TYPE_CHECKING:
    from stylesim.scoring.copies.copy_check import CopyCheck

SIDES = ("queries", "gallery")

log = logging.getLogger(__name__)


class Settings(EmbeddingSettings):
    """The keys of `stylesim attribute`."""

    queries: str | list[str] = Field(
        description="A folder, a table of paths, shards or descriptors that `embed` wrote; or a list of image sources."
    )
    gallery: str | list[str] = Field(description="The works, named in the same ways.")
    label: str = Field(
        "*", description="Which tags are labels: a glob such as artist:*. In a folder, sub-folders are the tags."
    )
    measure: Literal["cosine", "csls", "csls_label_aware"] = Field(
        "csls", description="Similarity of an image and a work; label-aware: own works are no neighbours."
    )
    pool: Literal["nearest", "pooled"] = Field("nearest", description="Score a label by its nearest works, or by all.")
    nearest_works: PositiveInt = Field(3, description="How many works are the nearest; labels with fewer are shrunk.")
    csls_k: PositiveInt = Field(10, description="Neighbours in a neighbourhood of CSLS.")
    distinct_content: bool = Field(False, description="Leave out works that show the same content as the image.")
    ranks: PositiveInt = Field(5, description="Labels listed for each image.")
    alpha: float = Field(0.1, description="Largest p-value of an attribution: how often foreign labels get a name.")
    confidence: float = Field(0.9, description="Probability of being right that an attribution needs.")
    closed: bool = Field(False, description="Every image is known to be by one of the labels.")
    calibration_works: PositiveInt = Field(2000, description="Works that are attributed for calibration, at most.")
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
    roots = {side: check_images(cfg, side) for side in SIDES}
    if not all(map(is_descriptor_set, roots.values())):
        check_encoders(cfg)
    from stylesim.report.attribution_report import write_attribution_report
    from stylesim.report.attribution_tables import flat_metrics, write_attribution_tables
    from stylesim.retrieval.descriptor_set import DescriptorSet
    from stylesim.scoring.attribution.attribution import attribute
    from stylesim.scoring.attribution.attribution_verdict import VerdictRule

    VerdictRule(cfg.alpha, cfg.confidence, cfg.closed)  # refuses a wrong value before a model is loaded
    run_dir, folders = Path(cfg.run_dir), descriptor_folders(cfg, roots)
    sets = {side: DescriptorSet.load(folder) for side, folder in folders.items()}
    keys = ("label", "measure", "pool", "nearest_works", "csls_k", "distinct_content", "ranks")
    keys += ("alpha", "confidence", "closed", "calibration_works", "seed")
    attribution = attribute(sets["queries"], sets["gallery"], **{key: cfg[key] for key in keys})
    copies = _check_copies(cfg, sets["queries"].ids, folders)
    works = {*attribution.table["nearest"]}
    if not isinstance(copies, str):
        works |= set(copies.table[["match", "tile_match"]].stack())
    facts = find_work_facts(image_roots(folders["gallery"]), works)
    write_attribution_tables(run_dir, attribution, copies, facts)
    find = {side: partial(find_images, folder) for side, folder in folders.items()}
    page = write_attribution_report(run_dir, attribution, copies, sets, find, facts)
    print(f"{attribution}\n{'copies: ' + copies if isinstance(copies, str) else copies.summary}\nreport: {page}")
    return flat_metrics(attribution, copies)


def _check_copies(cfg: DictConfig, queries: list[str], folders: dict[str, Path]) -> CopyCheck | str:
    """Return the copy check, or why it is not available."""
    unavailable = "copy check not available"
    if cfg.get("copy_encoder") is None:
        return f"{unavailable}: it was turned off"
    roots = image_roots(folders["gallery"])
    if not (roots and find_images(folders["queries"], queries[:1])):
        return f"{unavailable}: the images were not found where they were embedded"
    from stylesim.encoders.weights.locate import check_model_weights
    from stylesim.scoring.copies.copy_check import check_copies

    try:
        check_model_weights(cfg.copy_encoder)
        encoder = instantiate(cfg.copy_encoder)
    except WeightsError as error:
        log.warning("%s: %s", unavailable, error)
        return f"{unavailable}: {error}"
    gallery = embed_roots(encoder, roots, Path(cfg.run_dir) / "descriptors" / "gallery_for_copies", cfg)
    find = [partial(find_images, folders[side]) for side in SIDES]
    thresholds = {"candidate": cfg.copy_candidate, "near_duplicate": cfg.copy_near_duplicate}
    return check_copies(encoder, queries, find[0], gallery, find[1], **thresholds, seed=cfg.seed)


if __name__ == "__main__":
    run("attribute")
