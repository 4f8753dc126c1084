"""Write a ranking of candidates as CSV and JSON, and flatten it to metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylesim.core.files import write_json
from stylesim.report.tables.result_files import without_nan, write_csv
from stylesim.scoring.ranking.candidate_ranking import CandidateRanking

PLAIN = ("distance", "vendi", "repeats", "in_reference", "first")
"""Numbers of the style encoder's descriptors, besides the similarity."""


def write_ranking_tables(run_dir: Path, ranking: CandidateRanking) -> None:
    """Write `ranking.csv`, `comparisons.csv`, `per_image.csv` and `ranking.json`.

    Each row of the CSV files names the encoders behind its numbers. In the JSON, each number stands beside the name of
    its encoder and its scale.

    Args:
        run_dir: Folder of the run.
        ranking: The ranking.
    """
    by = {"style_encoder": ranking.encoder}
    write_csv(run_dir / "ranking.csv", ranking.table)
    write_csv(run_dir / "comparisons.csv", ranking.comparisons.assign(**by))
    write_csv(run_dir / "per_image.csv", ranking.per_image.assign(**by))
    similarities = ranking.reference_similarities._asdict()
    content = {
        "summary": ranking.summary,
        "notes": ranking.notes,
        "style_encoder": ranking.encoder,
        "works": ranking.works,
        "vendi_images": ranking.vendi_images,
        "scale": {name: float(x.mean()) if len(x) else None for name, x in similarities.items()},
        "candidates": [_candidate(row, ranking) for row in ranking.table.to_dict("records")],
        "comparisons": [row | by for row in ranking.comparisons.to_dict("records")],
    }
    write_json(run_dir / "ranking.json", without_nan(content))


def flat_metrics(ranking: CandidateRanking) -> dict[str, float]:
    """Return the metrics of every candidate under a name of its own, such as `candidate/<name>/style_similarity`."""
    best = ranking.table.iloc[0]
    metrics: dict[str, float] = {
        "candidates": len(ranking.table),
        "best_style_similarity": float(best["style_similarity"]),
        "works/same": float(best["works_same"]),
        "works/different": float(best["works_different"]),
    }
    names = ["style_similarity", "low", "high", *PLAIN, "copy_rate", *ranking.content_names]
    for row in ranking.table.to_dict("records"):
        metrics |= {f"candidate/{row['candidate']}/{name}": float(row[name]) for name in names}
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _candidate(row: Mapping[Any, Any], ranking: CandidateRanking) -> dict[str, Any]:
    scale = {name: row[f"works_{name}"] for name in ("same", "different", "others")}
    similarity = {"value": row["style_similarity"], "low": row["low"], "high": row["high"], "works": scale}
    metrics: dict[str, Any] = {"style_similarity": similarity | {"encoder": ranking.encoder}}
    for name in PLAIN:
        metrics[name] = {"value": row[name], "encoder": ranking.encoder}
    for name in ("distance", "vendi"):
        metrics[name]["works"] = row[f"works_{name}"]
    metrics["copy_rate"] = {"value": row["copy_rate"], "encoder": row.get("copy_encoder")}
    for name, encoder in ranking.content_names.items():
        ends = {end: row[f"{name}_{end}"] for end in ("low", "high", "mismatched")}
        metrics[name] = {"value": row[name], **ends, "encoder": encoder}
    counts = {"images": row["images"]} | ({"content_pairs": row["content_pairs"]} if ranking.content_names else {})
    return {
        "rank": row["rank"],
        "candidate": row["candidate"],
        **counts,
        "collapsed": row["collapsed"],
        "metrics": metrics,
    }
