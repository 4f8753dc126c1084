"""Where an encoder goes wrong: the labels it knows least, and what it takes them for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from html import escape
from itertools import chain
from pathlib import Path

import pandas as pd

from stylesim.data.folder import load_table
from stylesim.errors import StylesimError
from stylesim.retrieval.evaluate import Retrieval, item_values
from stylesim.retrieval.spec import matching_tags

Movements = Mapping[str, str] | str
"""Which movement a label belongs to: label -> movement, or a glob over the tags that name the movement."""

CLASSES = 40
"""Rows of a confusion matrix; what is rarer is summed up as OTHERS."""
OTHERS, UNKNOWN = "others", "unknown"


def read_movements(movements: str) -> Movements:
    """A table of labels (or artists) and movements, or a glob over tags, which is given back.

    Raises `StylesimError` for a table that is missing or lacks a column.
    """
    if not movements.endswith((".csv", ".tsv", ".parquet")):
        return movements
    if not (file := Path(movements).expanduser()).is_file():
        raise StylesimError(f"movements={movements}: there is no such table. Its columns are artist and movement.")
    table = load_table(file)
    label = next((column for column in ("artist", "label") if column in table), None)
    if label is None or "movement" not in table:
        raise StylesimError(f"{file} needs the columns artist and movement; it has {', '.join(map(str, table))}.")
    return dict(zip(table[label].astype(str), table["movement"].astype(str), strict=True))


def first_answers(retrieval: Retrieval) -> pd.DataFrame | None:
    """Each query's `label`, that of its nearest neighbour (`found`), and whether that is `right`; indexed by id.

    Queries and neighbours without a label are left out. None where an image has several labels, of which none is its
    own.
    """
    sides = [item_values(side.items, retrieval.spec.relevant) for side in (retrieval.queries, retrieval.gallery)]
    if any(len(values) > 1 for values in chain(*sides)):
        return None
    nearest = retrieval.neighbours.indices[:, 0].tolist()
    rows = [
        (id, ours[0], sides[1][index][0])
        for id, ours, index in zip(retrieval.queries.ids, sides[0], nearest, strict=True)
        if index >= 0 and ours and sides[1][index]
    ]
    answers = pd.DataFrame(rows, columns=["id", "label", "found"]).set_index("id")
    return answers.assign(right=answers["label"] == answers["found"])


def by_label(answers: pd.DataFrame) -> pd.DataFrame:
    """For each label `queries`, `recall@1`, the label it is most often `taken_for`, and how many `times`.

    The worst come first; of labels with the same share the one with more queries.
    """
    rows = []
    for label, group in answers.groupby("label"):
        wrong = Counter(group.loc[~group["right"], "found"])
        taken_for, times = min(wrong.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
        rows.append((label, len(group), float(group["right"].mean()), taken_for, times))
    table = pd.DataFrame(rows, columns=["label", "queries", "recall@1", "taken_for", "times"])
    return table.sort_values(["recall@1", "queries", "label"], ascending=[True, False, True], ignore_index=True)


def movement_of(retrieval: Retrieval, movements: Movements) -> dict[str, str]:
    """The movement of each label: as given, or by a glob the one that most images of the label are tagged with.

    Empty where no image has such a tag, and where these tags are the labels themselves. A label that the table lacks,
    or whose images have none, is UNKNOWN.
    """
    if movements == retrieval.spec.relevant:
        return {}
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for side in (retrieval.queries, retrieval.gallery):
        for (label, *_), known in zip(
            (values or [""] for values in item_values(side.items, retrieval.spec.relevant)),
            side.items["tags"],
            strict=True,
        ):
            tags[label].update(matching_tags(known, movements) if isinstance(movements, str) else [])
    if isinstance(movements, Mapping):
        return {label: movements.get(label, movements.get(_short(label), UNKNOWN)) for label in tags}
    if not any(tags.values()):
        return {}
    most = {label: min(counts, key=lambda tag: (-counts[tag], tag), default=UNKNOWN) for label, counts in tags.items()}
    return {label: _short(movement) for label, movement in most.items()}


def confusion(answers: pd.DataFrame, movement: Mapping[str, str]) -> pd.DataFrame:
    """Counts, rows by what a query is and columns by what its nearest neighbour is, over the same names.

    With movements, of the wrong answers alone: the diagonal holds those of another artist in the right movement.
    Without, of all answers and by label. The CLASSES most frequent names have a row; OTHERS is the rest.
    """
    wrong = answers[~answers["right"]] if movement else answers
    pairs = pd.DataFrame({side: [movement.get(v, _short(v)) for v in wrong[side]] for side in ("label", "found")})
    counts = Counter(pairs["label"]) + Counter(pairs["found"])
    kept = {name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:CLASSES]}
    pairs = pairs.apply(lambda side: side.where(side.isin(kept), OTHERS))
    names = sorted(kept) + [OTHERS] * (len(counts) > len(kept))
    return pd.crosstab(pairs["label"], pairs["found"]).reindex(index=names, columns=names, fill_value=0)


def confusion_picture(matrix: pd.DataFrame, title: str, file: Path) -> None:
    """Draw the counts; the colour is their share of a row."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    counts = matrix.to_numpy()
    share = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    size = 2.6 + 0.3 * len(matrix)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=max(float(share.max()), 0.01))
    names = [name.replace("_", " ") for name in matrix.index]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("nearest neighbour")
    axes.set_ylabel("query")
    axes.set_title(title, fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in zip(*counts.nonzero(), strict=True):
        colour = "white" if share[row, column] > 0.6 * share.max() else "black"
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=6, color=colour)
    figure.colorbar(picture, shrink=0.5, label="share of the row")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=130)


def worst_html(table: pd.DataFrame, *, shown: int = 20) -> str:
    """The first rows of `by_label` for a report."""
    lines = "".join(
        f"<tr><th>{escape(_short(row.label))}</th><td>{row.queries:,}</td><td>{row.share:.3f}</td>"
        f"<td>{escape(_short(row.taken_for))}{f' ({row.times:,})' if row.times else ''}</td></tr>"
        for row in table.head(shown).rename(columns={"recall@1": "share"}).itertuples()
    )
    head = "<tr><th>label</th><th>queries</th><th>recall@1</th><th>most often taken for</th></tr>"
    return f'<div class="wide"><table class="plain"><thead>{head}</thead><tbody>{lines}</tbody></table></div>'


def _short(label: str) -> str:
    """A tag without its group."""
    return label.rpartition(":")[2]
