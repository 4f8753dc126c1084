"""Score how much generated images resemble reference works in style.

    stylesim score generated=/my/generations reference=/my/works checkpoint=outputs/.../checkpoints/best.safetensors
    stylesim score generated=my_descriptors reference=their_descriptors    what `embed` wrote; no model is loaded

Embed large folders first: that can be interrupted and continued, and is done once. If both sides have sub-folders with
the same names, each generated image is compared with the works of its own label.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from stylesim.core.run_folder import RESULTS_OF_SCORE, remove_results
from stylesim.runtime.embedding_run import descriptor_folders, find_digests, find_images, is_descriptor_set
from stylesim.runtime.existence_checks import check_encoders, check_images
from stylesim.runtime.launch import run
from stylesim.runtime.settings import EmbeddingSettings

log = logging.getLogger(__name__)

SIDES = ("generated", "reference")


class Settings(EmbeddingSettings):
    """The keys of `stylesim score`."""

    generated: str | list[str] = Field(
        description="A folder, a table of paths, shards or descriptors that `embed` wrote; or a list of image sources."
    )
    reference: str | list[str] = Field(description="The reference works, named in the same ways.")
    label: str = Field(
        "*", description="Which tags are labels: a glob such as artist:*. In a folder, sub-folders are the tags."
    )
    neighbours: PositiveInt = Field(10, description="Number of nearest works listed for each generated image.")
    keep_copies: bool = Field(
        False, description="Compare a generated image also with its own copy, if that is among the works."
    )
    seed: int = Field(0, description="Seed of the bootstrap.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Score `generated` against `reference` and return the metrics, their intervals, and those of each label.

    Writes into `cfg.run_dir`: `score.json`, `per_image.csv`, `pairs.csv`, `labels.csv` (where there are labels),
    `score.html`, and the `descriptors/` of images that were not embedded before.

    Raises:
        ConfigError: If images are missing.
        WeightsError: If weights are missing, or the encoder's head is untrained.
        DataError: If the two sets of descriptors were made by different encoders, or there is nothing to compare.
    """
    roots = {side: check_images(cfg, side) for side in SIDES}
    if not all(map(is_descriptor_set, roots.values())):
        check_encoders(cfg)
    from stylesim.report.pages.score_report import copies_note, summary, write_score_report
    from stylesim.report.tables.score_tables import flat_metrics, write_score_tables
    from stylesim.retrieval.descriptor_set import DescriptorSet
    from stylesim.retrieval.readouts import Csls
    from stylesim.scoring.shared_images import find_copies
    from stylesim.scoring.style_score import score_sets

    run_dir = Path(cfg.run_dir)
    remove_results(run_dir, RESULTS_OF_SCORE)
    folders = descriptor_folders(cfg, roots)
    sets = {side: DescriptorSet.load(folder) for side, folder in folders.items()}
    readout = instantiate(cfg.readout)
    csls = readout if isinstance(readout, Csls) else None  # it changes no descriptors, but adds a metric
    copies = find_copies(sets["generated"], sets["reference"], {s: partial(find_digests, folders[s]) for s in SIDES})
    style_score = score_sets(
        sets["generated"],
        sets["reference"],
        label=cfg.label,
        readout=None if csls else readout,
        csls_k=(csls or Csls()).k,
        neighbours=cfg.neighbours,
        seed=cfg.seed,
        copies=copies,
        keep_copies=cfg.keep_copies,
    )
    if note := copies_note(style_score):
        log.warning("%s", note)
    write_score_tables(run_dir, style_score, sets)
    page = write_score_report(run_dir, style_score, sets, {side: partial(find_images, folders[side]) for side in SIDES})
    print(f"{summary(style_score, sets)}\nreport: {page}", flush=True)
    return flat_metrics(style_score)


if __name__ == "__main__":
    run("score")
