"""Score how much generated images resemble reference works in style.

    stylesim score generated=/my/generations reference=/my/works checkpoint=outputs/.../checkpoints/best.safetensors
    stylesim score generated=my_descriptors reference=their_descriptors    what `embed` wrote; no model is loaded

Embed large folders first: that can be interrupted and continued, and is done once. Where both sides have sub-folders of
the same names, each generated image is compared with the works of its own label.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.utils import instantiate
from jaxtyping import Float
from omegaconf import DictConfig
from pydantic import Field, PositiveInt

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_json
from stylesim.data.roots import Root
from stylesim.runtime.config import check_encoders
from stylesim.runtime.inputs import ROOTS, check_images, embed_roots, load_model
from stylesim.runtime.launch import run
from stylesim.runtime.settings import EmbeddingSettings

if TYPE_CHECKING:
    from stylesim.core.images import ImageLike
    from stylesim.retrieval.descriptor_set import DescriptorSet
    from stylesim.scoring.style_score import StyleScore

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
    neighbours: PositiveInt = Field(10, description="Nearest works listed for each generated image.")
    seed: int = Field(0, description="Seed of the bootstrap.")


def main(cfg: DictConfig) -> dict[str, float]:
    """Score `generated` against `reference`; returns the metrics, their intervals, and those of each label.

    Leaves in `cfg.run_dir`: `score.json`, `per_image.csv`, `pairs.csv`, `labels.csv` (where there are labels),
    `score.html`, and the `descriptors/` that it made.

    Raises:
        StylesimError: If images or weights are missing, the head has never been trained, or two sets of descriptors
            are of different encoders.
    """
    roots = {side: check_images(cfg, side) for side in SIDES}
    fresh = [side for side in SIDES if not _is_described(roots[side])]
    if fresh:
        check_encoders(cfg)
    from stylesim.report.score_report import summary, write_score_report
    from stylesim.retrieval.descriptor_set import DescriptorSet
    from stylesim.retrieval.readouts import Csls
    from stylesim.scoring.style_score import score_sets

    run_dir, encoder = Path(cfg.run_dir), load_model(cfg) if fresh else None
    folders = {s: run_dir / "descriptors" / s if s in fresh else Path(roots[s][0].location) for s in SIDES}
    if encoder is not None:
        for side in fresh:
            embed_roots(encoder, roots[side], folders[side], cfg)
    sets = {side: DescriptorSet.load(folder) for side, folder in folders.items()}
    readout = instantiate(cfg.readout)
    csls = readout if isinstance(readout, Csls) else None  # no other descriptors here, but a metric beside the raw one
    style_score = score_sets(
        sets["generated"],
        sets["reference"],
        label=cfg.label,
        readout=None if csls else readout,
        csls_k=(csls or Csls()).k,
        neighbours=cfg.neighbours,
        seed=cfg.seed,
    )
    write_tables(run_dir, style_score, sets)
    page = write_score_report(run_dir, style_score, sets, {side: partial(find_images, folders[side]) for side in SIDES})
    print(f"{summary(style_score, sets)}\nreport: {page}", flush=True)
    return flat(style_score)


def write_tables(run_dir: Path, style_score: StyleScore, sets: Mapping[str, DescriptorSet]) -> None:
    """Write `score.json`, and the tables that a spreadsheet reads."""
    style_score.per_image.to_csv(run_dir / "per_image.csv", index=False)
    style_score.pairs.to_csv(run_dir / "pairs.csv", index=False)
    if len(style_score.per_label):
        style_score.per_label.to_csv(run_dir / "labels.csv", index=False)
    content = {
        "metrics": _without_nan([style_score.metrics])[0],
        "intervals": style_score.intervals,
        "images": {side: len(images) for side, images in sets.items()},
        "matched_labels": style_score.labels_matched,
        "labels": _without_nan(style_score.per_label.to_dict("records")),
        "labels_left_out": style_score.unmatched_labels,
        "works_of_reference": {
            name: _spread(values) for name, values in style_score.reference_similarities._asdict().items()
        },
        "encoder": sets["generated"].meta.get("encoder"),
        "damaged": {side: images.damaged for side, images in sets.items()},
    }
    write_json(run_dir / "score.json", content)


def flat(style_score: StyleScore) -> dict[str, float]:
    """Every metric under a name of its own: what a sweep compares."""
    metrics = dict(style_score.metrics)
    for name, (low, high) in style_score.intervals.items():
        metrics |= {f"{name}/low": low, f"{name}/high": high}
    for name, values in style_score.reference_similarities._asdict().items():
        metrics |= {f"works/{name}": float(values.mean())} if len(values) else {}
    wanted = ["gss", "csls", "discrimination", "discrimination_csls"]
    for line in style_score.per_label.to_dict("records"):
        metrics |= {f"label/{line['label']}/{name}": line[name] for name in wanted if name in line}
    if "discrimination" in style_score.per_label:
        metrics["discrimination"] = float(np.mean(style_score.per_label["discrimination"]))
    return metrics


def _without_nan(lines: Sequence[Mapping[Any, Any]]) -> list[dict[Any, Any]]:
    """JSON has no NaN: what is not known is null."""
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in line.items()} for line in lines]


def _spread(values: Float[np.ndarray, " n"]) -> dict[str, float] | None:
    if not len(values):
        return None
    quantiles = {f"quantile_{q}": float(np.quantile(values, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    return {"similarities": len(values), "mean": float(values.mean()), **quantiles}


def _is_described(roots: list[Root]) -> bool:
    return len(roots) == 1 and (Path(roots[0].location) / "descriptors.npy").is_file()


def find_images(folder: Path, wanted: Collection[str]) -> dict[str, ImageLike]:
    """The images of a descriptor set by their ids, in one pass over where `embed` found them; {} if it is not known."""
    from stylesim.data.open_samples import open_samples

    if not (folder / ROOTS).is_file():
        return {}
    roots = [Root(location, name) for name, location in json.loads((folder / ROOTS).read_text()).items()]
    try:
        return {item.id: item.image for item in open_samples(roots) if item.id in wanted and item.image is not None}
    except StylesimError:  # they have been moved since: the metrics stand without pictures
        return {}


if __name__ == "__main__":
    run("score")
