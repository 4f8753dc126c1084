"""Find out which labels an encoder confuses: recall by label, and a confusion matrix of labels or movements."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int

from stylesim.core.errors import ConfigError, DataError
from stylesim.data.image_tables import read_table
from stylesim.evaluation.evaluate_descriptors import RetrievalResult
from stylesim.evaluation.labels import label_values, matching_tags
from stylesim.report.plots.svg_figures import INK, PALETTE, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Movements = Mapping[str, str] | str
"""The movement of each label, or a glob over the tags that name an image's movement."""

MAX_CLASSES = 40
"""Rows of a confusion matrix; rarer classes are combined in one row, OTHERS."""
OTHERS, UNKNOWN = "others", "unknown"


class Prediction(NamedTuple):
    """The label of a query, and the label of its nearest neighbour."""

    id: str
    label: str
    predicted: str

    @property
    def correct(self) -> bool:
        """Whether the labels are equal."""
        return self.label == self.predicted


class LabelErrors(NamedTuple):
    """How well the queries of one label are recognised.

    Attributes:
        label: The label.
        queries: Its number of queries.
        recall: Share of them whose nearest neighbour has the label.
        confused_with: The most frequent wrong label, empty if there is none.
        times: How often that label is predicted.
    """

    label: str
    queries: int
    recall: float
    confused_with: str
    times: int


class ConfusionMatrix(NamedTuple):
    """Counts of queries; rows are the classes of the queries, columns those of their nearest neighbours."""

    names: list[str]
    counts: Int[np.ndarray, "c c"]


def read_movements(movements: str) -> Movements:
    """Read a table of labels and movements.

    Args:
        movements: A `.csv`, `.tsv` or `.parquet` file with the columns `artist` (or `label`) and `movement`, or a glob
            over tags such as `genre:*`.

    Returns:
        The movement of each label; or `movements` itself if it is a glob.

    Raises:
        ConfigError: If the table does not exist.
        DataError: If it lacks a column or cannot be read.
    """
    if not movements.endswith((".csv", ".tsv", ".parquet")):
        return movements
    path = Path(movements).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"movements must be an existing table with the columns artist and movement, or a glob over tags, got"
            f" {movements}, which does not exist."
        )
    table = read_table(path)
    label = next((column for column in ("artist", "label") if column in table), None)
    if label is None or "movement" not in table:
        raise DataError(f"{path} must have the columns artist and movement, but it has {', '.join(map(str, table))}.")
    return dict(zip(table[label].astype(str), table["movement"].astype(str), strict=True))


def nearest_neighbour_predictions(retrieval: RetrievalResult) -> list[Prediction]:
    """Predict the label of each query from its nearest neighbour.

    Queries are left out if they or their nearest neighbour have no label. If any image has several labels, no single
    label can be predicted, and the list is empty.
    """
    queries, gallery = (
        label_values(side.items, retrieval.spec.relevant) for side in (retrieval.queries, retrieval.gallery)
    )
    if any(len(labels) > 1 for labels in chain(queries, gallery)):
        return []
    nearest = retrieval.neighbours.indices[:, 0].tolist()
    return [
        Prediction(id, labels[0], gallery[index][0])
        for id, labels, index in zip(retrieval.queries.ids, queries, nearest, strict=True)
        if index >= 0 and labels and gallery[index]
    ]


def errors_by_label(predictions: Sequence[Prediction]) -> list[LabelErrors]:
    """Return the errors of each label, sorted by ascending recall, then by descending number of queries."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        groups[prediction.label].append(prediction)
    labels = []
    for label, group in groups.items():
        wrong = Counter(prediction.predicted for prediction in group if not prediction.correct)
        confused_with, times = min(wrong.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
        labels.append(LabelErrors(label, len(group), 1 - wrong.total() / len(group), confused_with, times))
    return sorted(labels, key=lambda line: (line.recall, -line.queries, line.label))


def movements_of_labels(retrieval: RetrievalResult, movements: Movements) -> dict[str, str]:
    """Return the movement of each label, UNKNOWN if there is none.

    If `movements` is a glob, the movement of a label is the matching tag that most of its images have. The result is
    empty if no image has such a tag, or if these tags are the labels themselves.
    """
    if movements == retrieval.spec.relevant:
        return {}
    tags: dict[str, Counter[str]] = defaultdict(Counter)
    for side in (retrieval.queries, retrieval.gallery):
        labels = (values[0] if values else "" for values in label_values(side.items, retrieval.spec.relevant))
        for label, image_tags in zip(labels, side.items["tags"], strict=True):
            tags[label].update(matching_tags(image_tags, movements) if isinstance(movements, str) else [])
    if isinstance(movements, Mapping):
        return {label: movements.get(label, movements.get(_tag_value(label), UNKNOWN)) for label in tags}
    if not any(tags.values()):
        return {}
    most_frequent = {
        label: min(counts, key=lambda tag: (-counts[tag], tag), default=UNKNOWN) for label, counts in tags.items()
    }
    return {label: _tag_value(movement) for label, movement in most_frequent.items()}


def confusion_matrix(predictions: Sequence[Prediction], movements: Mapping[str, str]) -> ConfusionMatrix:
    """Count classes of queries against classes of their nearest neighbours.

    Args:
        predictions: The predictions to count.
        movements: The movement of each label, or empty. With movements, only wrong predictions are counted, by
            movement; the diagonal counts those of another label in the correct movement. Without movements, all
            predictions are counted, by label.

    Returns:
        The MAX_CLASSES most frequent classes, and OTHERS for the rest.
    """

    def class_of(label: str) -> str:
        return movements.get(label, _tag_value(label))

    pairs = [
        (class_of(prediction.label), class_of(prediction.predicted))
        for prediction in predictions
        if not (movements and prediction.correct)
    ]
    by_frequency = sorted(Counter(chain(*pairs)).items(), key=lambda item: (-item[1], item[0]))
    names = sorted(name for name, _ in by_frequency[:MAX_CLASSES]) + [OTHERS] * (len(by_frequency) > MAX_CLASSES)
    index = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=int)
    for pair in pairs:
        counts[tuple(index.get(name, len(names) - 1) for name in pair)] += 1
    return ConfusionMatrix(names, counts)


def plot_confusion_matrix(matrix: ConfusionMatrix, title: str) -> Figure:
    """Draw the counts; the colour of a cell is its share of the row."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    names, counts = [name.replace("_", " ") for name in matrix.names], matrix.counts
    share = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    size = 2.6 + 0.3 * len(names)
    figure = new_figure(size + 0.6, size)
    axes = figure.add_subplot()
    # From transparent to opaque, so that cells look right on light and dark pages.
    colours = LinearSegmentedColormap.from_list("share", [to_rgba(PALETTE[0], alpha) for alpha in (0, 1)])
    image = axes.imshow(share, cmap=colours, vmin=0, vmax=max(float(share.max()), 0.01))
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("nearest neighbour", color=INK)
    axes.set_ylabel("query", color=INK)
    axes.set_title(title, fontsize=10, color=INK)
    axes.tick_params(length=0, colors=INK)
    axes.spines[:].set_visible(False)
    for row, column in zip(*counts.nonzero(), strict=True):
        colour = "white" if share[row, column] > 0.6 * share.max() else INK
        axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=6, color=colour)
    bar = figure.colorbar(image, shrink=0.5)
    bar.set_label("share of the row", color=INK)
    bar.ax.tick_params(colors=INK)
    bar.outline.set_visible(False)
    return figure


def _tag_value(tag: str) -> str:
    """Return a tag without its group: `monet` for `artist:monet`."""
    return tag.rpartition(":")[2]
