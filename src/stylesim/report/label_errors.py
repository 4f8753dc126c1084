"""Where an encoder goes wrong: the labels it knows least, and what it takes them for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from stylesim.core.errors import StylesimError
from stylesim.data.image_tables import read_table
from stylesim.evaluation.evaluate_descriptors import RetrievalResult
from stylesim.evaluation.labels import label_values, matching_tags

Movements = Mapping[str, str] | str
"""Which movement a label belongs to: label -> movement, or a glob over the tags that name the movement."""

CLASSES = 40
"""Rows of a confusion matrix; what is rarer is summed up as OTHERS."""
OTHERS, UNKNOWN = "others", "unknown"


class Prediction(NamedTuple):
    """A query's label and that of its nearest neighbour."""

    id: str
    label: str
    predicted: str

    @property
    def correct(self) -> bool:
        return self.label == self.predicted


class LabelErrors(NamedTuple):
    """How a label fares: its queries, the share that finds it, and what the others find most often, how often."""

    label: str
    queries: int
    recall: float
    taken_for: str
    times: int


class ConfusionMatrix(NamedTuple):
    """Counts, rows by what a query is and columns by what its nearest neighbour is."""

    names: list[str]
    counts: Int[np.ndarray, "c c"]


def read_movements(movements: str) -> Movements:
    """A table of labels (or artists) and movements, or a glob over tags, which is given back.

    Raises `StylesimError` for a table that is missing or lacks a column.
    """
    if not movements.endswith((".csv", ".tsv", ".parquet")):
        return movements
    if not (file := Path(movements).expanduser()).is_file():
        raise StylesimError(f"movements={movements}: there is no such table. Its columns are artist and movement.")
    table = read_table(file)
    label = next((column for column in ("artist", "label") if column in table), None)
    if label is None or "movement" not in table:
        raise StylesimError(f"{file} needs the columns artist and movement; it has {', '.join(map(str, table))}.")
    return dict(zip(table[label].astype(str), table["movement"].astype(str), strict=True))


def nearest_neighbour_predictions(retrieval: RetrievalResult) -> list[Prediction]:
    """The answer to each query; queries and neighbours without a label are left out.

    None at all where images have several labels, of which none is their own.
    """
    sides = [label_values(side.items, retrieval.spec.relevant) for side in (retrieval.queries, retrieval.gallery)]
    if any(len(values) > 1 for values in chain(*sides)):
        return []
    nearest = retrieval.neighbours.indices[:, 0].tolist()
    return [
        Prediction(id, ours[0], sides[1][index][0])
        for id, ours, index in zip(retrieval.queries.ids, sides[0], nearest, strict=True)
        if index >= 0 and ours and sides[1][index]
    ]


def errors_by_label(answers: Sequence[Prediction]) -> list[LabelErrors]:
    """The labels, the worst first; of those with the same share the one with more queries."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for answer in answers:
        groups[answer.label].append(answer)
    lines = []
    for label, group in groups.items():
        wrong = Counter(answer.predicted for answer in group if not answer.correct)
        taken_for, times = min(wrong.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
        lines.append(LabelErrors(label, len(group), 1 - sum(wrong.values()) / len(group), taken_for, times))
    return sorted(lines, key=lambda line: (line.recall, -line.queries, line.label))


def movements_of_labels(retrieval: RetrievalResult, movements: Movements) -> dict[str, str]:
    """The movement of each label: as given, or by a glob the one that most images of the label are tagged with.

    Empty where no image has such a tag, and where these tags are the labels themselves. A label that the table lacks,
    or whose images have none, is UNKNOWN.
    """
    if movements == retrieval.spec.relevant:
        return {}
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for side in (retrieval.queries, retrieval.gallery):
        for (label, *_), known in zip(
            (values or [""] for values in label_values(side.items, retrieval.spec.relevant)),
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


def confusion_matrix(answers: Sequence[Prediction], movement: Mapping[str, str]) -> ConfusionMatrix:
    """What is taken for what, over the CLASSES most frequent names; OTHERS is the rest.

    With movements, of the wrong answers alone: the diagonal holds those of another artist in the right movement.
    Without, of all answers and by label.
    """
    pairs = [
        (movement.get(answer.label, _short(answer.label)), movement.get(answer.predicted, _short(answer.predicted)))
        for answer in answers
        if not (movement and answer.correct)
    ]
    frequent = sorted(Counter(chain(*pairs)).items(), key=lambda item: (-item[1], item[0]))
    names = sorted(name for name, _ in frequent[:CLASSES]) + [OTHERS] * (len(frequent) > CLASSES)
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=int)
    for pair in pairs:
        counts[tuple(place.get(name, len(names) - 1) for name in pair)] += 1
    return ConfusionMatrix(names, counts)


def plot_confusion_matrix(matrix: ConfusionMatrix, title: str, file: Path) -> None:
    """Draw the counts; the colour is their share of a row."""
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib.figure import Figure

    names, counts = [name.replace("_", " ") for name in matrix.names], matrix.counts
    share = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    size = 2.6 + 0.3 * len(names)
    figure = Figure(figsize=(size + 0.6, size), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=max(float(share.max()), 0.01))
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


def worst_html(lines: Sequence[LabelErrors], *, shown: int = 20) -> str:
    """The first lines of `errors_by_label` for a report."""
    rows = "".join(
        f"<tr><th>{escape(_short(line.label))}</th><td>{line.queries:,}</td><td>{line.recall:.3f}</td>"
        f"<td>{escape(_short(line.taken_for))}{f' ({line.times:,})' if line.times else ''}</td></tr>"
        for line in lines[:shown]
    )
    head = "<tr><th>label</th><th>queries</th><th>recall@1</th><th>most often taken for</th></tr>"
    return f'<div class="wide"><table class="plain"><thead>{head}</thead><tbody>{rows}</tbody></table></div>'


def _short(label: str) -> str:
    """A tag without its group."""
    return label.rpartition(":")[2]
