"""Compare ways of attributing images to labels: accuracy, rejection of foreign labels, and calibration.

    python experiments/attribution/compare.py --descriptors DIR --encoders frozen_lite0 palette

DIR/<encoder>/<set> are descriptor sets, made as the README says: the four sets of StyleCross and, if they are
there, `artist_studies` and `movements`. Needs scikit-learn (the extra `analysis`).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from stylesim.evaluation.labels import label_values
from stylesim.retrieval.descriptor_set import DescriptorSet
from stylesim.scoring.attribution.attribution import Attribution
from stylesim.scoring.attribution.attribution_calibration import calibration_error, rank_auc, reliability_curve
from stylesim.scoring.attribution.attributor import attribute

OWN = {
    "whitened csls (default)": {},
    "whitened csls nearest 3": {"nearest_works": 3},
    "whitened csls nearest 10": {"nearest_works": 10},
    "csls": {"measure": "csls"},
    "csls nearest 1": {"measure": "csls", "nearest_works": 1},
    "csls nearest 3": {"measure": "csls", "nearest_works": 3},
    "csls pooled": {"measure": "csls", "pool": "pooled"},
    "label-aware csls": {"measure": "csls_label_aware"},
    "cosine": {"measure": "cosine"},
    "cosine pooled": {"measure": "cosine", "pool": "pooled"},
}
"""Scores of stylesim, by the arguments of `attribute` that differ from the defaults."""
PROBE_STRENGTHS = (0.1, 1.0, 10.0, 100.0)


def unit(images: DescriptorSet) -> np.ndarray:
    x = np.asarray(images.descriptors, dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def labels_of(images: DescriptorSet, glob: str) -> np.ndarray:
    return np.array([(values or [""])[0] for values in label_values(images.items, glob)])


def vote(scores: np.ndarray, labels: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The label with the most of the k nearest works (ties to the larger sum of scores), and its best score."""
    names, codes = np.unique(labels, return_inverse=True)
    nearest = np.argsort(-scores, axis=1)[:, :k]
    table = np.zeros((len(scores), len(names)))
    rows = np.arange(len(scores))[:, None]
    np.add.at(table, (rows, codes[nearest]), 1 + 1e-3 * np.take_along_axis(scores, nearest, axis=1))
    return names[table.argmax(axis=1)], scores.max(axis=1)


def csls(x: np.ndarray, gallery: np.ndarray, k: int = 10) -> np.ndarray:
    """2 cos(q, w) - r(q) - r(w), with neighbourhoods in the gallery."""
    among = gallery @ gallery.T
    np.fill_diagonal(among, -np.inf)
    cosines = x @ gallery.T
    near = [np.sort(table, axis=1)[:, -k:].mean(axis=1) for table in (cosines, among)]
    return 2 * cosines - near[0][:, None] - near[1][None]


class Simple:
    """The methods that attribution is compared with; each returns the labels and a score for rejecting."""

    def __init__(self, gallery: DescriptorSet, glob: str, chosen: tuple[np.ndarray, np.ndarray] | None) -> None:
        from sklearn.linear_model import LogisticRegression

        self.x, self.labels = unit(gallery), labels_of(gallery, glob)
        self.names = np.unique(self.labels)
        means = np.stack([self.x[self.labels == name].mean(axis=0) for name in self.names])
        self.prototypes = means / np.linalg.norm(means, axis=1, keepdims=True)
        self.mean, self.scale = self.x.mean(axis=0), self.x.std(axis=0).clip(1e-6)
        strengths = PROBE_STRENGTHS if chosen is not None else (1.0,)
        probes = [LogisticRegression(C=c / len(self.x) * 100, max_iter=300) for c in strengths]
        for probe in probes:
            probe.fit((self.x - self.mean) / self.scale, self.labels)
        right = [0.0] * len(probes)
        if chosen is not None:
            right = [(probe.predict((chosen[0] - self.mean) / self.scale) == chosen[1]).mean() for probe in probes]
        self.probe = probes[int(np.argmax(right))]

    def predict(self, images: DescriptorSet) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        x = unit(images)
        cosines, corrected = x @ self.x.T, csls(x, self.x)
        to_prototypes = x @ self.prototypes.T
        probabilities = self.probe.predict_proba((x - self.mean) / self.scale)
        return {
            "nearest neighbour": vote(cosines, self.labels, 1),
            "vote of 5": vote(cosines, self.labels, 5),
            "vote of 5, CSLS": vote(corrected, self.labels, 5),
            "prototype": (self.names[to_prototypes.argmax(axis=1)], to_prototypes.max(axis=1)),
            "linear probe": (self.probe.classes_[probabilities.argmax(axis=1)], probabilities.max(axis=1)),
        }


def best_rows(result: Attribution) -> pd.DataFrame:
    return result.table[result.table["rank"] == 1].reset_index(drop=True)


def thinned(gallery: DescriptorSet, glob: str, works: int, seed: int) -> DescriptorSet:
    labels, rng = labels_of(gallery, glob), np.random.default_rng(seed)
    rows = [rng.permutation(np.flatnonzero(labels == name))[:works] for name in np.unique(labels)]
    return gallery.select(np.sort(np.concatenate(rows)))


def stylecross(folder: Path, encoder: str) -> list[dict[str, object]]:
    """All methods on validation and, once, on the tests: unseen contents, and unseen styles as foreign labels."""
    sets = {
        name: DescriptorSet.load(folder / name) for name in ("train", "validation", "unseen_contents", "unseen_styles")
    }
    rows = []
    for works in (0, 10):
        gallery = thinned(sets["train"], "set:*", works, 0) if works else sets["train"]
        truth = {name: labels_of(sets[name], "set:*") for name in ("validation", "unseen_contents")}
        simple = Simple(gallery, "set:*", (unit(sets["validation"]), truth["validation"]))
        predicted = {name: simple.predict(sets[name]) for name in ("validation", "unseen_contents", "unseen_styles")}
        for method in predicted["validation"]:
            row = {"data": "stylecross", "encoder": encoder, "works": works or "all", "method": method}
            for name, of_set in truth.items():
                row[f"accuracy_{name}"] = (predicted[name][method][0] == of_set).mean()
            row["auc_foreign"] = rank_auc(
                predicted["unseen_contents"][method][1], predicted["unseen_styles"][method][1]
            )
            rows.append(row)
        for method, options in OWN.items():
            row = {"data": "stylecross", "encoder": encoder, "works": works or "all", "method": method}
            results = {name: attribute(sets[name], gallery, label="set:*", ranks=2, **options) for name in predicted}
            for name, of_set in truth.items():
                row[f"accuracy_{name}"] = (best_rows(results[name])["label"].to_numpy() == of_set).mean()
            tops = [best_rows(results[name])["score"].to_numpy() for name in ("unseen_contents", "unseen_styles")]
            row["auc_foreign"] = rank_auc(*tops)
            rows.append(
                row | reliability(results["unseen_contents"], truth["unseen_contents"], results["unseen_styles"])
            )
    return rows


def reliability(known: Attribution, truth: np.ndarray, foreign: Attribution) -> dict[str, object]:
    """How far the verdicts can be trusted, on images that are not in the gallery."""
    right = (best_rows(known)["label"].to_numpy() == truth).astype(float)
    kinds = known.verdicts["verdict"].to_numpy()
    named = kinds == "attributed"
    row = {"loo_accuracy": known.calibration.accuracy, "loo_auc": known.calibration.auc_open_set}
    row |= {"ece_held_out": known.calibration.ece, "ece_by_chance": known.calibration.ece_if_calibrated}
    if known.calibration.model is not None:
        row["ece_queries"] = calibration_error(reliability_curve(known.verdicts["probability"].to_numpy(), right))
    row |= {f"share_{kind}": (kinds == kind).mean() for kind in ("attributed", "ambiguous", "none")}
    row["right_if_attributed"] = right[named].mean() if named.any() else np.nan
    row["foreign_below_alpha"] = (foreign.verdicts["p_value"] <= foreign.rule.alpha + 1e-9).mean()
    row["foreign_attributed"] = (foreign.verdicts["verdict"] == "attributed").mean()
    return row | ({"negative_gaps": str(known.gaps)} if known.gaps else {})


def artist_studies(folder: Path, encoder: str, artists: int, seed: int) -> list[dict[str, object]]:
    """Leave one subject out; as many other artists stand for foreign labels."""
    images = DescriptorSet.load(folder / "artist_studies")
    labels, contents = labels_of(images, "artist:*"), images.items["content"].to_numpy()
    names = np.random.default_rng(seed).permutation(np.unique(labels))
    known, foreign = names[:artists], names[artists : 2 * artists]
    collected: dict[str, list[np.ndarray]] = {}
    results: dict[str, list[tuple[Attribution, np.ndarray, Attribution]]] = {}
    for subject in np.unique(contents):
        gallery = images.select(np.flatnonzero(np.isin(labels, known) & (contents != subject)))
        queries = images.select(np.flatnonzero(np.isin(labels, known) & (contents == subject)))
        others = images.select(np.flatnonzero(np.isin(labels, foreign) & (contents == subject)))
        truth = labels_of(queries, "artist:*")
        simple = Simple(gallery, "artist:*", None)
        mine, theirs = simple.predict(queries), simple.predict(others)
        for method in mine:
            row = [(mine[method][0] == truth).mean(), rank_auc(mine[method][1], theirs[method][1])]
            collected.setdefault(method, []).append(np.array(row))
        for method, options in OWN.items():
            pair = [attribute(side, gallery, label="artist:*", ranks=2, **options) for side in (queries, others)]
            right = (best_rows(pair[0])["label"].to_numpy() == truth).mean()
            auc = rank_auc(*(best_rows(result)["score"].to_numpy() for result in pair))
            collected.setdefault(method, []).append(np.array([right, auc]))
            results.setdefault(method, []).append((pair[0], truth, pair[1]))
    rows = []
    for method, values in collected.items():
        accuracy, auc = np.mean(values, axis=0)
        row = {"data": f"artist_studies, {artists} artists", "encoder": encoder, "works": 3, "method": method}
        row |= {"accuracy": accuracy, "chance": 1 / artists, "auc_foreign": auc}
        if method in results:
            folds = pd.DataFrame([reliability(*fold) for fold in results[method]])
            row |= folds.mean(numeric_only=True).to_dict() | {"negative_gaps": folds["negative_gaps"].iloc[0]}
        rows.append(row)
    return rows


def movements(folder: Path, encoder: str) -> list[dict[str, object]]:
    """Leave one painting out of the six movements; the last fifth of the paintings are queries for the others."""
    images = DescriptorSet.load(folder / "movements")
    order = np.random.default_rng(0).permutation(len(images))
    cut = len(images) * 4 // 5
    gallery, queries = images.select(np.sort(order[:cut])), images.select(np.sort(order[cut:]))
    truth = labels_of(queries, "movement:*")
    rows = []
    for method, (labels, _) in Simple(gallery, "movement:*", None).predict(queries).items():
        row = {"data": "movements", "encoder": encoder, "works": "all", "method": method}
        rows.append(row | {"accuracy": (labels == truth).mean(), "chance": 1 / 6})
    for method, options in OWN.items():
        result = attribute(queries, gallery, label="movement:*", ranks=2, closed=True, **options)
        row = {"data": "movements", "encoder": encoder, "works": "all", "method": method, "chance": 1 / 6}
        row["accuracy"] = (best_rows(result)["label"].to_numpy() == truth).mean()
        row |= reliability(result, truth, result)
        rows.append({name: value for name, value in row.items() if not name.startswith("foreign")})
    return rows


def shuffled(folder: Path, encoder: str) -> list[dict[str, object]]:
    """The gallery of StyleCross with its labels shuffled: everything must fall to chance."""
    sets = {name: DescriptorSet.load(folder / name) for name in ("train", "unseen_contents", "unseen_styles")}
    gallery = thinned(sets["train"], "set:*", 50, 0)
    tags = np.random.default_rng(0).permutation(gallery.items["tags"].to_numpy())
    mixed = DescriptorSet(gallery.descriptors, gallery.items.assign(tags=tags), gallery.meta)
    known, foreign = (
        attribute(sets[name], mixed, label="set:*", ranks=2) for name in ("unseen_contents", "unseen_styles")
    )
    truth = labels_of(sets["unseen_contents"], "set:*")
    row = {"data": "stylecross, shuffled labels", "encoder": encoder, "works": 50, "method": "whitened csls (default)"}
    row |= {"accuracy": (best_rows(known)["label"].to_numpy() == truth).mean(), "chance": 1 / 19}
    return [row | reliability(known, truth, foreign)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--descriptors", type=Path, required=True)
    parser.add_argument("--encoders", nargs="+", default=["frozen_lite0", "palette"])
    parser.add_argument("--artists", type=int, default=120)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "comparison.csv")
    arguments = parser.parse_args()
    rows: list[dict[str, object]] = []
    for encoder in arguments.encoders:
        folder = arguments.descriptors / encoder
        parts = [lambda f=folder, e=encoder: stylecross(f, e), lambda f=folder, e=encoder: shuffled(f, e)]
        if (folder / "artist_studies").exists():
            parts.append(lambda f=folder, e=encoder: artist_studies(f, e, arguments.artists, 0))
        if (folder / "movements").exists():
            parts.append(lambda f=folder, e=encoder: movements(f, e))
        for part in parts:
            rows += part()
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(arguments.out, index=False, float_format="%.4f")
            print(pd.DataFrame(rows[-15:]).to_string(max_colwidth=32, float_format="%.3f"), flush=True)


if __name__ == "__main__":
    main()
