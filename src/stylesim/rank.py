"""Rank many folders of generated images (checkpoints, models, seeds) by how much they resemble the same works in style.

    stylesim rank candidates='runs/*/samples' reference=/my/works checkpoint=outputs/.../checkpoints/best.safetensors
    stylesim rank candidates=candidates.csv reference=/my/works content=/my/photographs model=csd_vitl
    stylesim rank candidates='[epoch_1,epoch_2]' reference=works    what `embed` wrote; no model is loaded

Neighbours in the ranking are compared on the images that have the same file names. Beside the style stand the diversity
of each candidate, the share of copies, and with `content` how much of the content images is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, NonNegativeInt

from stylesim.core.errors import ConfigError, WeightsError
from stylesim.core.run_folder import RESULTS_OF_RANKING, remove_results
from stylesim.data.candidate_folders import find_candidates
from stylesim.runtime.copy_encoder import UNAVAILABLE, load_copy_encoder
from stylesim.runtime.embedding_run import (
    descriptor_folders,
    embed_roots,
    find_digests,
    find_images,
    image_roots,
    is_descriptor_set,
)
from stylesim.runtime.existence_checks import check_encoders, check_images, require_images
from stylesim.runtime.launch import run
from stylesim.runtime.settings import EmbeddingSettings

if TYPE_CHECKING:
    import pandas as pd

    from stylesim.data.roots import Root
    from stylesim.retrieval.descriptor_set import DescriptorSet
    from stylesim.scoring.copies.copy_check import CopyCheck
    from stylesim.scoring.ranking.rank_sets import ContentComparison

REFERENCE = "reference"

log = logging.getLogger(__name__)


class Settings(EmbeddingSettings):
    """The keys of `stylesim rank`."""

    candidates: str | list[str] = Field(
        description="A glob of folders (quote it), a list of image sources, or a table with the columns path and name."
    )
    reference: str | list[str] = Field(
        description="The works: a folder, a table of paths, shards or descriptors that `embed` wrote; or a list."
    )
    content: str | list[str] | None = Field(
        None, description="Content images; each is compared with the generated images that have its file name."
    )
    label: str = Field(
        "*", description="Which tags are labels: a glob such as artist:*. In a folder, sub-folders are the tags."
    )
    lpips_weights: str | None = Field(
        None, description="A file of torchvision's VGG16 for LPIPS; null is the published one."
    )
    copy_candidate: float = Field(0.5, description="Copy similarity from which an image counts as a copy.")
    copy_near_duplicate: float = Field(0.75, description="Copy similarity of a near-duplicate.")
    seed: NonNegativeInt = Field(0, description="Seed of the resampling.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Rank `candidates` by their style similarity to `reference` and return the metrics of each.

    Writes into `cfg.run_dir`: `ranking.csv`, `comparisons.csv`, `per_image.csv`, `ranking.json`, `ranking.html`, and
    the `descriptors/` of images that were not embedded before.

    Raises:
        ConfigError: If images, or a file of weights that is named, are missing.
        WeightsError: If weights of the style encoder are missing, or its head is untrained.
        DataError: If two sets of descriptors were made by different encoders, or no file name of a candidate is one of
            the content images.
    """
    named, empty = find_candidates(list(cfg.candidates) if OmegaConf.is_list(cfg.candidates) else cfg.candidates)
    require_images(list(named.values()), "candidates")
    roots = {_folder_of(number): [root] for number, root in enumerate(named.values())}
    roots[REFERENCE] = check_images(cfg, REFERENCE)
    contents = None if cfg.content is None else check_images(cfg, "content")
    if cfg.lpips_weights and not Path(cfg.lpips_weights).is_file():
        raise ConfigError(f"lpips_weights must be an existing file, got {cfg.lpips_weights}.")
    if not all(map(is_descriptor_set, roots.values())):
        check_encoders(cfg)
    from stylesim.report.pages.ranking_report import write_ranking_report
    from stylesim.report.tables.ranking_tables import flat_metrics, write_ranking_tables
    from stylesim.retrieval.descriptor_set import DescriptorSet
    from stylesim.scoring.ranking.rank_sets import rank_sets
    from stylesim.scoring.shared_images import find_copies

    run_dir = Path(cfg.run_dir)
    remove_results(run_dir, RESULTS_OF_RANKING)
    folders = descriptor_folders(cfg, roots)
    works_folder = folders.pop(REFERENCE)
    folders = dict(zip(named, folders.values(), strict=True))
    works = DescriptorSet.load(works_folder)
    sets = {name: DescriptorSet.load(folder) for name, folder in folders.items()}
    copies = {
        name: find_copies(
            sets[name],
            works,
            {"generated": partial(find_digests, folder), "reference": partial(find_digests, works_folder)},
        )
        for name, folder in folders.items()
    }
    ranking = rank_sets(
        sets,
        works,
        label=cfg.label,
        copies=copies,
        copy_checks=_check_copies(cfg, sets, folders, works_folder),
        content=None if contents is None else _compare_content(cfg, sets, folders, contents),
        seed=cfg.seed,
    )
    ranking.notes.extend(f"Left out, because there is no image in it: {folder}." for folder in empty)
    write_ranking_tables(run_dir, ranking)
    damaged = [pair for images in [*sets.values(), works] for pair in images.damaged]
    find = {name: partial(find_images, folder) for name, folder in folders.items()}
    page = write_ranking_report(run_dir, ranking, find, works.meta.get("encoder") or {}, damaged)
    metrics = flat_metrics(ranking)
    if "wandb" in cfg.logger:
        _log(cfg, run_dir, metrics, ranking.table)
    print(f"{ranking}\nreport: {page}", flush=True)
    return metrics


def _folder_of(number: int) -> str:
    """Return the name of the folder of a candidate's descriptors; that of the candidate may be no file name."""
    return f"candidate_{number:03d}"


def _check_copies(
    cfg: DictConfig, sets: Mapping[str, DescriptorSet], folders: Mapping[str, Path], works_folder: Path
) -> Mapping[str, CopyCheck] | str:
    """Return the copy check of each candidate, or why it is not available."""
    from stylesim.scoring.copies.copy_check import check_copies

    encoder = load_copy_encoder(cfg)
    if isinstance(encoder, str):
        return encoder
    if not all(image_roots(folder) for folder in [*folders.values(), works_folder]):
        return f"{UNAVAILABLE}: the images were not found where they were embedded"
    works = embed_roots(
        encoder, image_roots(works_folder), Path(cfg.run_dir) / "descriptors" / "reference_for_copies", cfg
    )
    checks = {}
    for name, folder in folders.items():
        checks[name] = check_copies(
            encoder,
            sets[name].ids,
            partial(find_images, folder),
            works,
            partial(find_images, works_folder),
            candidate=cfg.copy_candidate,
            near_duplicate=cfg.copy_near_duplicate,
            seed=cfg.seed,
        )
    return checks


def _compare_content(
    cfg: DictConfig, sets: Mapping[str, DescriptorSet], folders: Mapping[str, Path], contents: list[Root]
) -> ContentComparison:
    """Compare the images of each candidate with the content images."""
    from stylesim.core.devices import find_device
    from stylesim.data.open_samples import open_samples
    from stylesim.encoders.backbones.lpips import Lpips
    from stylesim.scoring.ranking.content_pairs import ContentMeasurer, compare_with_content
    from stylesim.scoring.ranking.rank_sets import ContentComparison

    found = {s.id: s.image for s in open_samples(contents) if s.image is not None}
    try:
        lpips: Lpips | str = Lpips(cfg.lpips_weights)
    except WeightsError as error:
        lpips = f"LPIPS was not computed. {error}"
        log.warning("%s", lpips)
    measurer = ContentMeasurer(instantiate(cfg.content_encoder), instantiate(cfg.maps), lpips)
    measurer = measurer.to(find_device(cfg.device))
    tables = {}
    for name, folder in folders.items():
        if not (images := find_images(folder, set(sets[name].ids))):
            raise ConfigError(f"content needs the images of {name}, but they are not where they were embedded.")
        tables[name] = compare_with_content(measurer, images, found, name=name)
    return ContentComparison(tables, measurer.names, lpips if isinstance(lpips, str) else "")


def _log(cfg: DictConfig, run_dir: Path, metrics: dict[str, float], table: pd.DataFrame) -> None:
    """Log the metrics and the table to the loggers of `logger`."""
    from lightning.pytorch.loggers import WandbLogger

    from stylesim.learning.loggers import build_loggers, finish_loggers

    loggers = build_loggers(cfg, run_dir, resumes=False)
    for logger in loggers:
        logger.log_metrics(metrics, step=0)
        if isinstance(logger, WandbLogger):
            logger.log_table("ranking", dataframe=table)
    finish_loggers(loggers, failed=False)


if __name__ == "__main__":
    run("rank")
