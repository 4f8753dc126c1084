"""Rank sets of descriptors by their style similarity to the same reference works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stylesim.core.errors import ConfigError, DataError
from stylesim.evaluation.statistics import bootstrap_interval
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.compared_sides import rows_by_label, unit_rows
from stylesim.scoring.copies.copy_check import CopyCheck
from stylesim.scoring.gss import NO_COPIES
from stylesim.scoring.ranking.candidate_ranking import CandidateRanking
from stylesim.scoring.ranking.content_pairs import MEASURES, artfid_note
from stylesim.scoring.ranking.diversity import COLLAPSED, Diversity, common_size, diversity, has_collapsed
from stylesim.scoring.ranking.neighbour_comparison import compare_neighbours, name_keys, shares_of_first_places
from stylesim.scoring.style_score import StyleScore, score_sets


class ContentComparison(NamedTuple):
    """How the content of each candidate compares with the content images."""

    tables: Mapping[str, pd.DataFrame]
    """For each candidate what `compare_with_content` returns."""
    names: Mapping[str, str]
    """The network behind each measure."""
    unavailable: str = ""
    """Why a measure is missing, in a sentence."""


def rank_sets(
    candidates: Mapping[str, DescriptorSet],
    reference: DescriptorSet,
    *,
    label: str = "*",
    copies: Mapping[str, Int[np.ndarray, "c 2"]] | None = None,
    copy_checks: Mapping[str, CopyCheck] | str = "copy check not available: it was not asked for",
    content: ContentComparison | None = None,
    seed: int = 0,
) -> CandidateRanking:
    """Rank sets of generated images by their General Style Similarity to the reference works.

    Args:
        candidates: The sets by name, of the encoder of the reference.
        reference: The works.
        label: Glob that selects the tags used as labels. If candidates and works have labels in common, each image is
            compared with the works of its own label.
        copies: For each candidate, its images that are files of the reference too (`find_copies`). Each of these is
            compared with the other works only.
        copy_checks: The copy check of each candidate, or why there is none.
        content: How the candidates compare with content images.
        seed: Seed of the resampling.

    Raises:
        ConfigError: If there is no candidate.
        DataError: If a set is of another encoder, or some candidates share labels with the works and others do not.
    """
    if not candidates:
        raise ConfigError("A ranking needs at least one candidate.")
    copies = dict.fromkeys(candidates, NO_COPIES) | dict(copies or {})
    scores = {name: _score(name, images, reference, label, copies[name], seed) for name, images in candidates.items()}
    matched = {name for name, score in scores.items() if score.labels_matched}
    if matched and len(matched) < len(scores):
        other = min(scores.keys() - matched)
        raise DataError(
            f"All candidates must be compared in the same way, but {min(matched)} has labels of the reference and"
            f" {other} has none. Name their sub-folders alike, or set label=none to compare all with all works."
        )
    per_image = {name: _image_similarities(score, candidates[name]) for name, score in scores.items()}
    values = {
        name: pd.Series(table["style_similarity"].to_numpy(), table["name"].tolist())
        for name, table in per_image.items()
    }
    size = common_size({name: len(images) for name, images in candidates.items()}, len(reference))
    varied = {name: _diversity(images, label, bool(matched), size, seed) for name, images in candidates.items()}
    works = _diversity(reference, label, bool(matched), size, seed)
    similarities = next(iter(scores.values())).reference_similarities
    scale = {f"works_{name}": _mean(x) for name, x in similarities._asdict().items()}
    scale |= {"works_distance": works.distance, "works_vendi": works.vendi}
    encoder = (reference.meta.get("encoder") or {}).get("name") or "unknown encoder"
    first = shares_of_first_places(values, seed=seed)
    rows = []
    for name, x in values.items():
        low, high = bootstrap_interval(x.to_numpy(), seed=seed) if len(x) > 1 else (np.nan, np.nan)
        row = {"candidate": name, "images": len(x), "style_similarity": float(x.mean()), "low": low, "high": high}
        row |= {"first": first[name], **varied[name]._asdict(), "collapsed": has_collapsed(varied[name], works)}
        row["in_reference"] = len(np.unique(copies[name][:, 0])) / len(candidates[name])
        row["copy_rate"] = _copy_rate(copy_checks, name)
        row |= {} if content is None else _content_values(content.tables[name], seed)
        rows.append(row | scale | _encoders(encoder, copy_checks, content))
    table = pd.DataFrame(rows).sort_values(["style_similarity", "candidate"], ascending=[False, True], kind="stable")
    table = table.reset_index(drop=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    order = table["candidate"].tolist()
    return CandidateRanking(
        table=table,
        comparisons=compare_neighbours(values, order, seed=seed),
        per_image=_per_image(per_image, order, content),
        reference_similarities=similarities,
        encoder=encoder,
        works=len(reference),
        vendi_images=size,
        content_names={} if content is None else content.names,
        notes=_notes(table, scores, reference, copy_checks, content),
    )


def _score(
    name: str, images: DescriptorSet, reference: DescriptorSet, label: str, copies: Int[np.ndarray, "c 2"], seed: int
) -> StyleScore:
    try:
        return score_sets(images, reference, label=label, neighbours=1, seed=seed, copies=copies)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


def _image_similarities(score: StyleScore, images: DescriptorSet) -> pd.DataFrame:
    """Return `id`, `name` (see `name_keys`) and `style_similarity`, a mean over its labels, of each image."""
    names = dict(zip(images.ids, name_keys(images.ids), strict=True))
    ids, rows = np.unique(score.per_image["id"].to_numpy(dtype=str), return_inverse=True)
    total = np.bincount(rows, score.per_image["gss"].to_numpy(dtype=np.float64))
    table = pd.DataFrame({"id": ids.tolist(), "name": [names[id] for id in ids.tolist()]})
    return table.assign(style_similarity=total / np.bincount(rows))


def _diversity(images: DescriptorSet, label: str, by_label: bool, size: int, seed: int) -> Diversity:
    groups = list(rows_by_label(images, label).values()) if by_label else [np.arange(len(images))]
    return diversity(unit_rows(np.asarray(images.descriptors)), groups, vendi_images=size, seed=seed)


def _mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _copy_rate(checks: Mapping[str, CopyCheck] | str, name: str) -> float:
    return float("nan") if isinstance(checks, str) else float(np.mean(checks[name].table["flag"].to_numpy() != "none"))


def _content_values(table: pd.DataFrame, seed: int) -> dict[str, float]:
    values: dict[str, float] = {"content_pairs": len(table)}
    for name in [measure for measure in MEASURES if measure in table]:
        x = table[name].to_numpy(dtype=np.float64)
        low, high = bootstrap_interval(x, seed=seed) if len(x) > 1 else (np.nan, np.nan)
        values |= {name: float(x.mean()), f"{name}_low": low, f"{name}_high": high}
        mismatched = table[f"{name}_mismatched"].to_numpy(dtype=np.float64)
        values[f"{name}_mismatched"] = _mean(mismatched[~np.isnan(mismatched)])  # a batch of one pair has no mismatch
    return values


def _encoders(encoder: str, checks: Mapping[str, CopyCheck] | str, content: ContentComparison | None) -> dict[str, str]:
    names = {"style_encoder": encoder}
    if not isinstance(checks, str):
        names["copy_encoder"] = next(iter(checks.values())).encoder
    return names if content is None else names | {f"{name}_by": by for name, by in content.names.items()}


def _per_image(images: Mapping[str, pd.DataFrame], order: list[str], content: ContentComparison | None) -> pd.DataFrame:
    tables = []
    for name in order:
        table = images[name]
        if content is not None:
            measured = content.tables[name].drop(columns="content").rename(columns={"image": "id"})
            table = table.merge(measured, on="id", how="left")
        table = table.sort_values("style_similarity", ascending=False, kind="stable")
        table.insert(0, "candidate", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _notes(
    table: pd.DataFrame,
    scores: Mapping[str, StyleScore],
    reference: DescriptorSet,
    checks: Mapping[str, CopyCheck] | str,
    content: ContentComparison | None,
) -> list[str]:
    notes = []

    def names_where(flags: Any) -> str:
        found = table.loc[flags, "candidate"].tolist()
        return ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")

    if names := names_where(table["collapsed"]):
        notes.append(
            f"Collapsed, so do not trust the score: {names}. Their images repeat each other, or differ less than"
            f" {COLLAPSED:g} times as much as the works do."
        )
    if names := names_where(table["in_reference"] >= 1):
        notes.append(f"Every image is a file of the reference itself: {names}. Each was compared with the other works.")
    if names := names_where((table["in_reference"] > 0) & (table["in_reference"] < 1)):
        notes.append(f"Some images are files of the reference: {names}. They were compared with the other works only.")
    if not len(next(iter(scores.values())).reference_similarities.different):
        notes.append(
            "The reference has no second style to compare with; sub-folders of works in other styles would give the"
            " other end of the scale."
        )
    elif len({frozenset(score.per_image["label"]) for score in scores.values()}) > 1:
        notes.append("The candidates do not have the same labels, so part of their difference may be one of labels.")
    if isinstance(checks, str):
        notes.append(f"{checks[0].upper()}{checks[1:].rstrip('.')}.")
    if content is not None:
        notes += [content.unavailable] if content.unavailable else []
        notes.append(_pairs_note(table))
        notes.append(artfid_note([len(one) for one in content.tables.values()], len(reference)))
    return notes


def _pairs_note(table: pd.DataFrame) -> str:
    counts = table["content_pairs"].tolist()
    fewest, most = min(counts), max(counts)
    count = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    return f"Content was compared on the {count} images of each candidate that have the file name of a content image."
