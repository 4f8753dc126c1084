"""Write attributions and copy checks as CSV and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stylesim.core.files import write_json
from stylesim.report.tables.result_files import without_nan, write_csv
from stylesim.scoring.attribution.attribution import Attribution
from stylesim.scoring.copies.copy_check import CopyCheck
from stylesim.scoring.copies.joint_reading import NOT_LEGAL, read_together

Facts = Mapping[str, Mapping[str, str]]
"""Title, author, licence and url of works, as far as they are known, by id."""


def write_attribution_tables(run_dir: Path, attribution: Attribution, copies: CopyCheck | str, facts: Facts) -> None:
    """Write `attribution.csv`, `attribution.json` and, if copies were checked, `copies.csv`.

    Args:
        run_dir: Folder of the run.
        attribution: The attributions.
        copies: The copy check, or why it is not available.
        facts: What is known about the works.
    """
    write_csv(run_dir / "attribution.csv", attribution.table)
    if isinstance(copies, CopyCheck):
        write_csv(run_dir / "copies.csv", _with_facts(copies.table, facts))
    calibration, gaps = attribution.calibration, attribution.gaps
    content = {
        "encoder": attribution.encoder,
        "summary": attribution.summary,
        "notes": attribution.notes,
        "legal": NOT_LEGAL,
        "score": vars(attribution.settings),
        "rule": vars(attribution.rule),
        "gallery": {"works": attribution.gallery_works, "unlabelled": attribution.unlabelled},
        "calibration": {
            "labels": calibration.labels,
            "works": int(calibration.leave_one_out.closed.sum()),
            "accuracy": calibration.accuracy,
            "balanced_accuracy": calibration.balanced_accuracy,
            "chance": 1 / calibration.labels,
            "ece": calibration.ece,
            "ece_if_calibrated": calibration.ece_if_calibrated,
            "auc_open_set": calibration.auc_open_set,
            "smallest_p_value": calibration.smallest_p_value,
            "reliability": calibration.reliability.to_dict("records"),
        },
        "negative_gaps": None if gaps is None else vars(gaps) | {"words": str(gaps)},
        "labels": attribution.per_label.to_dict("records"),
        "copy_check": _copy_content(copies),
        "images": _image_content(attribution, copies, facts),
    }
    write_json(run_dir / "attribution.json", without_nan(content))


def flat_metrics(attribution: Attribution, copies: CopyCheck | str) -> dict[str, float]:
    """Return the metrics of an attribution, each under a name of its own."""
    verdicts, calibration = attribution.verdicts["verdict"], attribution.calibration
    metrics = {f"share_{kind}": float(np.mean(verdicts == kind)) for kind in ("attributed", "ambiguous", "none")}
    metrics |= {
        "images": len(verdicts),
        "labels": calibration.labels,
        "accuracy": calibration.accuracy,
        "balanced_accuracy": calibration.balanced_accuracy,
        "ece": calibration.ece,
        "auc_open_set": calibration.auc_open_set,
    }
    if isinstance(copies, CopyCheck):
        metrics["share_flagged_copies"] = float(np.mean(copies.table["flag"] != "none"))
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def _copy_content(copies: CopyCheck | str) -> dict[str, Any]:
    if isinstance(copies, str):
        return {"available": False, "reason": copies}
    names = ("candidate", "near_duplicate")
    return {
        "available": True,
        "encoder": copies.encoder,
        "thresholds": dict(zip(names, copies.thresholds, strict=True)),
        "gallery_pairs": _quantiles(copies.gallery_pairs),
        "tile_pairs": _quantiles(copies.tile_pairs),
        "unread": copies.unread,
    }


def _quantiles(values: Any) -> dict[str, float] | None:
    if not len(values):
        return None
    quantiles = pd.Series(values).quantile([0.05, 0.5, 0.75, 0.95])
    return {"pairs": len(values), **{f"quantile_{q:g}": float(value) for q, value in quantiles.items()}}


def _image_content(attribution: Attribution, copies: CopyCheck | str, facts: Facts) -> list[dict[str, Any]]:
    copy_rows = copies.rows() if isinstance(copies, CopyCheck) else {}
    table = attribution.table.merge(attribution.evidence, on=["query", "label"])
    ranking = {query: rows.drop(columns="query").to_dict("records") for query, rows in table.groupby("query")}
    images = []
    for verdict in attribution.verdicts.to_dict("records"):
        copy = copy_rows.get(verdict["query"])
        image = verdict | {"labels": [label for label in verdict["labels"].split("|") if label]}
        image["ranking"] = ranking[verdict["query"]]
        image["copy"] = None if copy is None else copy | {"work": dict(facts.get(copy["copied"], {}))}
        image["reading"] = read_together(verdict["verdict"], None if copy is None else copy["flag"])
        images.append(image)
    return images


def _with_facts(table: pd.DataFrame, facts: Facts) -> pd.DataFrame:
    known = {name: [facts.get(id, {}).get(name) for id in table["copied"]] for name in ("title", "licence", "url")}
    return table.assign(**known)
