"""Write the scores of generated images as JSON and CSV."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from stylesim.core.files import write_json, write_text

if TYPE_CHECKING:
    from stylesim.retrieval.descriptor_set import DescriptorSet
    from stylesim.scoring.style_score import StyleScore


def write_score_tables(run_dir: Path, style_score: StyleScore, sets: Mapping[str, DescriptorSet]) -> None:
    """Write `score.json` with all metrics, and `per_image.csv`, `pairs.csv` and `labels.csv` (if there are labels).

    Args:
        run_dir: The run folder.
        style_score: The scores.
        sets: The compared descriptors, `generated` and `reference`.
    """
    tables = {"per_image": style_score.per_image, "pairs": style_score.pairs, "labels": style_score.per_label}
    for name, table in tables.items():
        if len(table):
            write_text(run_dir / f"{name}.csv", table.to_csv(index=False, lineterminator="\n"))
    content = {
        "metrics": _without_nan([style_score.metrics])[0],
        "intervals": style_score.intervals,
        "images": {side: len(images) for side, images in sets.items()},
        "matched_labels": style_score.labels_matched,
        "labels": _without_nan(style_score.per_label.to_dict("records")),
        "labels_left_out": style_score.unmatched_labels,
        "copies": {"counted": style_score.copies_counted, "pairs": style_score.copies.to_dict("records")},
        "works_of_reference": {
            name: _spread(values) for name, values in style_score.reference_similarities._asdict().items()
        },
        "encoder": sets["generated"].meta.get("encoder"),
        "damaged": {side: images.damaged for side, images in sets.items()},
    }
    write_json(run_dir / "score.json", content)


def flat_metrics(style_score: StyleScore) -> dict[str, float]:
    """Return all metrics under unique names such as `label/<label>/gss`, so that a sweep can compare them."""
    metrics = dict(style_score.metrics)
    for name, (low, high) in style_score.intervals.items():
        metrics |= {f"{name}/low": low, f"{name}/high": high}
    for name, values in style_score.reference_similarities._asdict().items():
        metrics |= {f"works/{name}": float(values.mean())} if len(values) else {}
    wanted = ["gss", "csls", "discrimination", "discrimination_csls"]
    for row in style_score.per_label.to_dict("records"):
        metrics |= {f"label/{row['label']}/{name}": row[name] for name in wanted if name in row}
    if "discrimination" in style_score.per_label:
        metrics["discrimination"] = float(np.mean(style_score.per_label["discrimination"]))
    return metrics


def _without_nan(rows: Sequence[Mapping[Any, Any]]) -> list[dict[Any, Any]]:
    """Replace NaN by null, since JSON has no NaN."""
    return [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]


def _spread(values: Float[np.ndarray, " n"]) -> dict[str, float] | None:
    if not len(values):
        return None
    quantiles = {f"quantile_{q}": float(np.quantile(values, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    return {"similarities": len(values), "mean": float(values.mean()), **quantiles}
