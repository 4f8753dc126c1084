"""Score generated images against reference works: metrics, intervals, nearest works and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Int

from stylesim.core.errors import ConfigError, DataError
from stylesim.evaluation.labels import label_values
from stylesim.evaluation.statistics import bootstrap_interval
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.retrieval.exact_search import search
from stylesim.retrieval.readouts import Pca, Readout, Whitened
from stylesim.scoring.compared_sides import Side, compare_sides, copies_within, unmatched_labels
from stylesim.scoring.gss import (
    NO_COPIES,
    ReferenceSimilarities,
    copy_groups,
    gap_to_best_other,
    image_scores,
    leave_one_out_similarities,
    mean_scores,
    reference_similarities,
)

MEANS = ("gss", "gss_unit_prototype", "gss_renormalised", "csls")
"""Metrics that are means of `image_scores`, and therefore have an interval."""
METRICS = (*MEANS, "gss_of_means")
ALL_IMAGES = ""
"""The label under which sets without common labels are compared as a whole."""

Matches = Mapping[str, tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]]
"""For each label: the rows of the generated images, and the rows of the works that they are compared with."""


@dataclass(frozen=True)
class StyleScore:
    """The style similarity of generated images and reference works, with what is needed to interpret it."""

    metrics: dict[str, float]
    """The mean over all generated images of each of METRICS (defined by `mean_scores` and `image_scores`)."""
    intervals: dict[str, tuple[float, float]]
    """The 95 % interval of each metric in MEANS, by a bootstrap over the generated images; empty for a single one."""
    per_image: pd.DataFrame
    """A row per generated image and label, the most similar first: `id, label, gss, gss_unit_prototype, csls`, the mean
    similarity to its nearest works (`nearest_mean`), and its nearest work (`nearest, nearest_label,
    nearest_similarity, nearest_csls`)."""
    pairs: pd.DataFrame
    """The nearest works of each generated image, the most similar pair first: `generated, reference, reference_label,
    rank, similarity, csls`."""
    per_label: pd.DataFrame
    """A row per label of the works: `label, works, gss, csls, own_works` (the mean similarity of two works with the
    label). If labels are matched, also `generated, low, high, gss_renormalised`, the most similar other label (`other,
    other_gss`), and the gaps to it, `discrimination` and `discrimination_csls`."""
    reference_similarities: ReferenceSimilarities
    """The similarities of the works to each other, as a scale for the score."""
    labels_matched: bool
    """Whether each generated image was compared with the works of its own label, rather than with all works."""
    unmatched_labels: list[str]
    """Labels of generated images that no work has, and `(none)` for images without a label. Such images have no
    score."""
    copies: pd.DataFrame
    """Images that stand on both sides: their ids, `generated, reference`."""
    copies_counted: bool
    """Whether a generated image was also compared with its own copy among the works."""


def score_sets(
    generated: DescriptorSet,
    reference: DescriptorSet,
    *,
    label: str = "*",
    readout: Readout | None = None,
    csls_k: int = 10,
    neighbours: int = 10,
    seed: int = 0,
    copies: Int[np.ndarray, "c 2"] = NO_COPIES,
    keep_copies: bool = False,
) -> StyleScore:
    """Score generated images against reference works.

    If the sets have labels in common, each generated image is compared with the prototype of the works of its own
    label; an image with several labels counts with each. Otherwise all are compared with the prototype of all works.
    Descriptors are normalised first. The neighbourhoods of CSLS are searched in the whole sets, whatever the labels.

    Args:
        generated: The generated images.
        reference: The works.
        label: Glob that selects the tags used as labels. In a folder of folders the tag of an image is its folder.
        readout: Transformation of the descriptors (see `retrieval.readouts`), with the works as its gallery. It must
            return unit vectors, as whitening does. `Csls` does not, and is not needed: every score includes `csls`.
        csls_k: Images in a neighbourhood of CSLS.
        neighbours: The number of nearest works listed for each generated image.
        seed: Seed of the bootstrap.
        copies: Rows of generated images and of works that are the same image (`find_copies`).
        keep_copies: Compare a generated image with its own copy as well, which makes every score higher. By default it
            is compared with the other works only, so that works score as they do among themselves.

    Returns:
        The scores.

    Raises:
        DataError: If the sets were embedded by different encoders, only one of them without colour, or no generated
            image has a work other than its own copy to be compared with.
        ConfigError: If `readout` centres the works and the sets have no label in common.
    """
    left_out = NO_COPIES if keep_copies else copies
    gen, ref = compare_sides(generated, reference, label=label, readout=readout, csls_k=csls_k, copies=left_out)
    common = [name for name in gen.rows_of if name in ref.rows_of]
    matches: Matches = {name: (gen.rows_of[name], ref.rows_of[name]) for name in common}
    if not common and isinstance(readout, Whitened | Pca):
        raise ConfigError(
            "readout=whitened and readout=pca centre the works at 0, so the mean of all works has no direction to"
            " compare with. Give both sides sub-folders with the same names, or use readout=cosine."
        )
    if not common:
        matches = {ALL_IMAGES: (np.arange(len(generated)), np.arange(len(reference)))}
    values = pd.concat(
        [_image_values(name, rows, gen, ref, left_out) for name, rows in matches.items()], ignore_index=True
    )
    if values.empty:
        raise DataError(
            "Every generated image is itself the only work that it could be compared with. Give other works, or set"
            " keep_copies=true."
        )
    nearest = _nearest_works(np.unique(values["row"]), gen, ref, neighbours, left_out)
    pairs = _with_names(nearest, gen, ref, label)
    return StyleScore(
        metrics={name: float(np.mean(values[name])) for name in METRICS},
        intervals={name: _interval(values, name, seed) for name in MEANS} if len(set(values["row"])) > 1 else {},
        per_image=_image_table(values, pairs, gen),
        pairs=_descending(pairs, "similarity"),
        per_label=_label_table(matches, gen, ref, values, seed, left_out),
        reference_similarities=reference_similarities(ref.vectors, ref.rows_of),
        labels_matched=bool(common),
        unmatched_labels=unmatched_labels(gen, ref, label) if common else [],
        copies=pd.DataFrame(
            {
                "generated": generated.items["id"].to_numpy()[copies[:, 0]],
                "reference": reference.items["id"].to_numpy()[copies[:, 1]],
            }
        ),
        copies_counted=keep_copies,
    )


def _image_values(
    label: str, rows: tuple[np.ndarray, np.ndarray], gen: Side, ref: Side, copies: Int[np.ndarray, "c 2"]
) -> pd.DataFrame:
    """Return a row per generated image of a label, with the values whose means are its metrics."""
    g, r, own = gen.vectors[rows[0]], ref.vectors[rows[1]], copies_within(copies, *rows)
    values = image_scores(g, r, gen.near[rows[0]], ref.near[rows[1]], own)
    means = mean_scores(g.mean(0, dtype=np.float64), r.mean(0, dtype=np.float64))
    of_means = values["gss"] if len(own) else means["gss"]
    table = pd.DataFrame({"row": rows[0], "label": label, **values, "gss_of_means": of_means})
    return table.loc[table["gss"].notna()]  # an image whose only work is its own copy has no score


def _interval(values: pd.DataFrame, name: str, seed: int) -> tuple[float, float]:
    # Resample images, not (image, label) rows: an image with several labels is one independent observation.
    return bootstrap_interval(np.asarray(values.groupby("row")[name].mean()), seed=seed)


def _nearest_works(
    rows: Int[np.ndarray, " n"], gen: Side, ref: Side, neighbours: int, copies: Int[np.ndarray, "c 2"]
) -> pd.DataFrame:
    """Return pairs of a generated image and one of its nearest works, the pairs of one image after each other."""
    k = min(neighbours, len(ref.vectors))
    groups = copy_groups(copies, len(gen.vectors), len(ref.vectors))
    of_rows = None if groups[0] is None else groups[0][rows]
    nearest = search(gen.vectors[rows], ref.vectors, k, query_groups=of_rows, gallery_groups=groups[1])
    pairs = pd.DataFrame(
        {
            "row": np.repeat(rows, k),
            "work": nearest.indices.numpy().ravel(),
            "rank": np.tile(np.arange(1, k + 1), len(rows)),
            "similarity": nearest.similarities.double().numpy().ravel(),
        }
    )
    pairs = pairs[pairs["work"] >= 0]  # fewer than k works are left beside its own copy
    near = gen.near[pairs["row"]] + ref.near[pairs["work"]]
    return pairs.assign(csls=2 * pairs["similarity"] - near)


def _with_names(pairs: pd.DataFrame, gen: Side, ref: Side, label: str) -> pd.DataFrame:
    """Replace rows by ids and labels; several labels of a work are separated by `|`."""
    items = ref.images.items.iloc[pairs["work"]]
    return pd.DataFrame(
        {
            "generated": gen.images.items["id"].to_numpy()[pairs["row"]],
            "reference": items["id"].to_numpy(),
            "reference_label": ["|".join(names) for names in label_values(items, label)],
            **pairs[["rank", "similarity", "csls"]],
        }
    )


def _image_table(values: pd.DataFrame, pairs: pd.DataFrame, gen: Side) -> pd.DataFrame:
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
    table = values.assign(id=gen.images.items["id"].to_numpy()[values["row"]]).join(nearest, on="id")
    columns = ["id", "label", "gss", "gss_unit_prototype", "csls", *nearest.columns]
    return pd.DataFrame(_descending(table, "gss"), columns=columns)


def _descending(table: pd.DataFrame, column: str) -> pd.DataFrame:
    order = np.argsort(-np.asarray(table[column]), kind="stable")
    return table.iloc[order].reset_index(drop=True)


def _label_table(
    matches: Matches, gen: Side, ref: Side, values: pd.DataFrame, seed: int, copies: Int[np.ndarray, "c 2"]
) -> pd.DataFrame:
    names, rows_of = list(ref.rows_of), list(ref.rows_of.values())
    table = pd.DataFrame({"label": names, "works": [len(rows) for rows in rows_of]})
    if table.empty:
        return table
    table["own_works"] = [
        leave_one_out_similarities(ref.vectors[rows]).mean() if len(rows) > 1 else np.nan for rows in rows_of
    ]
    prototypes = np.array([ref.vectors[rows].mean(0, dtype=np.float64) for rows in rows_of])
    gss = np.array([prototypes @ gen.vectors[rows].mean(0, dtype=np.float64) for rows, _ in matches.values()])
    near_generated = np.array([gen.near[rows].mean() for rows, _ in matches.values()])
    csls = 2 * gss - near_generated[:, None] - np.array([ref.near[rows].mean() for rows in rows_of])
    for i, (rows, _) in enumerate(matches.values()):
        for j, works in enumerate(rows_of):
            if len(own := copies_within(copies, rows, works)):
                scores = image_scores(gen.vectors[rows], ref.vectors[works], gen.near[rows], ref.near[works], own)
                scored = ~np.isnan(scores["gss"])
                for table_of, name in ((gss, "gss"), (csls, "csls")):
                    table_of[i, j] = scores[name][scored].mean() if scored.any() else np.nan
    if ALL_IMAGES in matches:
        return _descending(table.assign(gss=gss[0], csls=csls[0]), "gss")
    records = []
    for name, gss_of_label, csls_of_label in zip(matches, gss, csls, strict=True):
        own = pd.DataFrame(values[values["label"] == name])
        if own.empty:  # its images are their own only works
            continue
        gap, other = gap_to_best_other(gss_of_label, names.index(name))
        record = {"label": name, "generated": len(own), **own[["gss", "gss_renormalised", "csls"]].mean()}
        if len(own) > 1:
            record["low"], record["high"] = _interval(own, "gss", seed)
        if other is not None:
            record |= {"other": names[other], "other_gss": gss_of_label[other], "discrimination": gap}
            record["discrimination_csls"] = gap_to_best_other(csls_of_label, names.index(name))[0]
        records.append(record)
    return _descending(pd.DataFrame(records).merge(table, on="label"), "gss")
