"""score_sets(generated, reference): from two sets of descriptors to every style score of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from stylesim.core.errors import StylesimError
from stylesim.evaluation.labels import label_values
from stylesim.evaluation.statistics import bootstrap_interval
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.exact_search import search
from stylesim.retrieval.readouts import Pca, Readout, Whitened
from stylesim.scoring.gss import (
    ReferenceSimilarities,
    gap_to_best_other,
    image_scores,
    leave_one_out_similarities,
    mean_scores,
    neighbourhood_similarities,
    reference_similarities,
)

MEANS = ("gss", "gss_unit_prototype", "gss_renormalised", "csls")
"""Figures that are means of `scores.image_scores`, and so have an interval."""
METRICS = (*MEANS, "gss_of_means")
EVERYTHING = ""
"""The one label of images that are compared without labels."""

Rows = Mapping[str, Int[np.ndarray, " n"]]
"""Rows of a set by label, in the order of the labels."""


@dataclass(frozen=True)
class StyleScore:
    """What generations have in common with works, and what is needed to read the numbers."""

    metrics: dict[str, float]
    """Means over all generations: METRICS, explained at `scores.mean_scores` and `scores.image_scores`."""
    intervals: dict[str, tuple[float, float]]
    """95 % of each metric, by a bootstrap over the generations; empty for a single one, which varies from nothing."""
    per_image: pd.DataFrame
    """A row for each generation and label, the most similar first: `id, label, gss, gss_unit_prototype, csls`, the mean
    over its nearest works that are listed (`nearest_mean`), and the first of them (`nearest, nearest_label,
    nearest_similarity, nearest_csls`)."""
    pairs: pd.DataFrame
    """`generated, reference, reference_label, rank, similarity, csls` of the nearest works of each generation, the most
    similar first."""
    per_label: pd.DataFrame
    """A row for each label, none without labels: `label, works, gss, csls, own_works` (the mean similarity of two works
    of it). Where each generation has a label, also `generated, low, high, gss_renormalised`, the other label that comes
    nearest (`other, other_gss`), and `discrimination` and `discrimination_csls`."""
    reference_similarities: ReferenceSimilarities
    labels_matched: bool
    """Whether each generation was compared with the works of its own label, and not with all works."""
    unmatched_labels: list[str]
    """Labels of generations that no work has, and `(none)` for those without a label: these were not scored."""


class _Side(NamedTuple):
    """One of the two sets, seen from the other."""

    images: DescriptorSet
    vectors: Float[np.ndarray, "n d"]  # of length one
    labels: Rows
    near: Float[np.ndarray, " n"]  # mean similarity to the k nearest of the other side


Matches = Mapping[str, tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]]
"""By label: the rows of the generations, and of the works that they are compared with."""


def score_sets(
    generated: DescriptorSet,
    reference: DescriptorSet,
    *,
    label: str = "*",
    readout: Readout | None = None,
    csls_k: int = 10,
    neighbours: int = 10,
    seed: int = 0,
) -> StyleScore:
    """Score generations against the works that they are to resemble.

    Where the sets have labels in common, each generation is compared with the prototype of the works of its own label
    (one of several labels counts with each), and otherwise with that of all works. The neighbourhoods of CSLS are
    taken in the whole of either set. Descriptors of any length are made unit vectors first.

    Args:
        label: Glob over tags: which of them are labels. In a folder of folders the tag of an image is its folder.
        readout: What is done to the descriptors first (`retrieval.readouts`), with the works as its gallery: one that
            gives unit vectors, as whitening does. CSLS is none: it stands beside every score.
        csls_k: Images in a neighbourhood.
        neighbours: Nearest works listed for each generation, at most.
        seed: Of the bootstrap.

    Raises:
        StylesimError: If the sets were described by different encoders.
    """
    _refuse_strangers(generated, reference)
    vectors = tuple(_unit(side.descriptors) for side in (generated, reference))
    vectors = readout(*vectors) if readout else vectors
    near = neighbourhood_similarities(vectors[0], vectors[1], csls_k)
    sides = zip((generated, reference), vectors, near, strict=True)
    ours, works = (_Side(images, v, _rows(images, label), n) for images, v, n in sides)
    common = [name for name in ours.labels if name in works.labels]
    matches = {name: (ours.labels[name], works.labels[name]) for name in common}
    if not common and isinstance(readout, Whitened | Pca):
        raise StylesimError(
            "whitened and pca put the works around 0, so that all of them together have no direction to compare with:"
            " give both sides sub-folders of the same names, or take readout=cosine."
        )
    if not common:
        matches = {EVERYTHING: (np.arange(len(generated)), np.arange(len(reference)))}
    values = pd.concat([_values(name, match, ours, works) for name, match in matches.items()], ignore_index=True)
    pairs = _named(_pairs(np.unique(values["row"]), ours, works, neighbours), ours, works, label)
    return StyleScore(
        metrics={name: float(np.mean(values[name])) for name in METRICS},
        intervals={name: _interval(values, name, seed) for name in MEANS} if len(set(values["row"])) > 1 else {},
        per_image=_image_table(values, pairs, ours),
        pairs=_descending(pairs, "similarity"),
        per_label=_label_table(matches, ours, works, values, seed),
        reference_similarities=reference_similarities(works.vectors, works.labels),
        labels_matched=bool(common),
        unmatched_labels=_left_out(ours, works, label) if common else [],
    )


def _refuse_strangers(generated: DescriptorSet, reference: DescriptorSet) -> None:
    if bool(generated.meta.get("greyscale")) != bool(reference.meta.get("greyscale")):
        raise StylesimError(
            "One of the two sets was described without colour and the other with it: describe one again."
        )
    digests = [side.meta.get("encoder_digest") for side in (generated, reference)]
    if None not in digests and digests[0] != digests[1]:
        names = [side.meta.get("encoder", {}).get("name") for side in (generated, reference)]
        raise StylesimError(
            f"The generated images were described by {names[0]} ({digests[0]}) and the reference by {names[1]} "
            f"({digests[1]}): similarities between two encoders mean nothing. Describe one of them again."
        )


def _left_out(ours: _Side, works: _Side, label: str) -> list[str]:
    unlabelled = not all(label_values(ours.images.items, label))
    return sorted(ours.labels.keys() - works.labels.keys()) + ["(none)"] * unlabelled


def _unit(descriptors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    return descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True)


def _rows(images: DescriptorSet, label: str) -> Rows:
    table: dict[str, list[int]] = {}
    for row, values in enumerate(label_values(images.items, label)):
        for value in values:
            table.setdefault(value, []).append(row)
    return {name: np.array(rows) for name, rows in sorted(table.items())}


def _values(label: str, match: tuple[np.ndarray, np.ndarray], ours: _Side, works: _Side) -> pd.DataFrame:
    """A row for each generation of a label, with the values whose means are its metrics."""
    mine, theirs = ours.vectors[match[0]], works.vectors[match[1]]
    values = image_scores(mine, theirs, ours.near[match[0]], works.near[match[1]])
    means = mean_scores(mine.mean(0, dtype=np.float64), theirs.mean(0, dtype=np.float64))
    return pd.DataFrame({"row": match[0], "label": label, **values, "gss_of_means": means["gss"]})


def _interval(values: pd.DataFrame, name: str, seed: int) -> tuple[float, float]:
    # Images are drawn, not their labels: an image of several labels is one witness.
    return bootstrap_interval(np.asarray(values.groupby("row")[name].mean()), seed=seed)


def _pairs(rows: Int[np.ndarray, " n"], ours: _Side, works: _Side, neighbours: int) -> pd.DataFrame:
    """Rows of either side, the nearest works of each generation being next to each other."""
    k = min(neighbours, len(works.vectors))
    found = search(ours.vectors[rows], works.vectors, k)
    pairs = pd.DataFrame(
        {
            "row": np.repeat(rows, k),
            "work": found.indices.numpy().ravel(),
            "rank": np.tile(np.arange(1, k + 1), len(rows)),
            "similarity": found.similarities.double().numpy().ravel(),
        }
    )
    crowded = ours.near[pairs["row"]] + works.near[pairs["work"]]
    return pairs.assign(csls=2 * pairs["similarity"] - crowded)


def _named(pairs: pd.DataFrame, ours: _Side, works: _Side, label: str) -> pd.DataFrame:
    """The pairs by ids and labels instead of rows; several labels of a work are separated by `|`."""
    items = works.images.items.iloc[pairs["work"]]
    return pd.DataFrame(
        {
            "generated": ours.images.items["id"].to_numpy()[pairs["row"]],
            "reference": items["id"].to_numpy(),
            "reference_label": ["|".join(names) for names in label_values(items, label)],
            **pairs[["rank", "similarity", "csls"]],
        }
    )


def _image_table(values: pd.DataFrame, pairs: pd.DataFrame, ours: _Side) -> pd.DataFrame:
    first = pairs[pairs["rank"] == 1].set_index("generated")
    nearest = pd.DataFrame(
        {
            "nearest_mean": pairs.groupby("generated")["similarity"].mean(),
            "nearest": first["reference"],
            "nearest_label": first["reference_label"],
            "nearest_similarity": first["similarity"],
            "nearest_csls": first["csls"],
        }
    )
    table = values.assign(id=ours.images.items["id"].to_numpy()[values["row"]]).join(nearest, on="id")
    columns = ["id", "label", "gss", "gss_unit_prototype", "csls", *nearest.columns]
    return pd.DataFrame(_descending(table, "gss"), columns=columns)


def _descending(table: pd.DataFrame, column: str) -> pd.DataFrame:
    order = np.argsort(-np.asarray(table[column]), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _label_table(matches: Matches, ours: _Side, works: _Side, values: pd.DataFrame, seed: int) -> pd.DataFrame:
    names, rows_of = list(works.labels), list(works.labels.values())
    table = pd.DataFrame({"label": names, "works": [len(rows) for rows in rows_of]})
    if table.empty:
        return table
    table["own_works"] = [
        leave_one_out_similarities(works.vectors[r]).mean() if len(r) > 1 else np.nan for r in rows_of
    ]
    prototypes = np.array([works.vectors[rows].mean(0, dtype=np.float64) for rows in rows_of])
    gss = np.array([prototypes @ ours.vectors[rows].mean(0, dtype=np.float64) for rows, _ in matches.values()])
    crowded = [ours.near[rows].mean() for rows, _ in matches.values()], [works.near[rows].mean() for rows in rows_of]
    csls = 2 * gss - np.array(crowded[0])[:, None] - np.array(crowded[1])
    if EVERYTHING in matches:
        return _descending(table.assign(gss=gss[0], csls=csls[0]), "gss")
    lines = []
    for name, similarities, hubless in zip(matches, gss, csls, strict=True):
        own = pd.DataFrame(values[values["label"] == name])
        gap, other = gap_to_best_other(similarities, names.index(name))
        line = {"label": name, "generated": len(own), **own[["gss", "gss_renormalised", "csls"]].mean()}
        if len(own) > 1:
            line["low"], line["high"] = _interval(own, "gss", seed)
        if other is not None:
            line |= {"other": names[other], "other_gss": similarities[other], "discrimination": gap}
            line["discrimination_csls"] = gap_to_best_other(hubless, names.index(name))[0]
        lines.append(line)
    return _descending(pd.DataFrame(lines).merge(table, on="label"), "gss")
