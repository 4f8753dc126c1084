from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from stylesim.core.errors import ConfigError, DataError
from stylesim.evaluation.evaluate_descriptors import RetrievalResult, evaluate_descriptors
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.report.html_page import render
from stylesim.report.label_errors import (
    MAX_CLASSES,
    OTHERS,
    UNKNOWN,
    ConfusionMatrix,
    LabelErrors,
    Prediction,
    confusion_matrix,
    errors_by_label,
    movements_of_labels,
    nearest_neighbour_predictions,
    plot_confusion_matrix,
    read_movements,
)
from stylesim.report.plots.svg_figures import inline_svg
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

# (id, artist, genre, position): the nearest neighbour is the gallery image at the nearest position.
GALLERY = [("m", "monet", "impressionism", 0.0), ("r", "renoir", "impressionism", 1.0), ("p", "picasso", "cubism", 2.0)]
QUERIES = [
    ("1", "monet", "impressionism", 0.1),
    ("2", "monet", "impressionism", 0.9),  # predicted: Renoir
    ("3", "monet", "realism", 1.1),  # predicted: Renoir; most images of Monet are impressionist
    ("4", "renoir", "impressionism", 1.9),  # predicted: Picasso
    ("5", "picasso", "cubism", 2.1),
    ("6", "picasso", "cubism", 2.2),
]


def retrieval_of(rows: list, gallery: list, relevant: str = "artist:*") -> RetrievalResult:
    def descriptors(side: list) -> DescriptorSet:
        angles = np.array([position / 4 for *_, position in side])
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        items = ((id, [f"artist:{a}", f"genre:{g}"], None, "s", n) for n, (id, a, g, _) in enumerate(side))
        return DescriptorSet(vectors, item_table(items))

    return evaluate_descriptors(descriptors(rows), descriptors(gallery), RetrievalSpec(["q"], ["g"], relevant, ks=(1,)))


@pytest.fixture(scope="module")
def retrieval() -> RetrievalResult:
    return retrieval_of(QUERIES, GALLERY)


def test_predictions_are_the_labels_of_the_nearest_neighbours(retrieval: RetrievalResult) -> None:
    predictions = nearest_neighbour_predictions(retrieval)
    expected = ["artist:monet", *["artist:renoir"] * 2, *["artist:picasso"] * 3]
    assert [prediction.predicted for prediction in predictions] == expected
    assert [prediction.correct for prediction in predictions] == [True, False, False, False, True, True]


def test_images_with_several_labels_have_no_predictions() -> None:
    assert nearest_neighbour_predictions(retrieval_of(QUERIES, GALLERY, "*")) == []


def test_label_with_the_lowest_recall_comes_first(retrieval: RetrievalResult) -> None:
    assert errors_by_label(nearest_neighbour_predictions(retrieval)) == [
        LabelErrors("artist:renoir", 1, 0.0, "artist:picasso", 1),
        LabelErrors("artist:monet", 3, 1 - 2 / 3, "artist:renoir", 2),
        LabelErrors("artist:picasso", 2, 1.0, "", 0),
    ]


def test_html_escapes_labels() -> None:
    labels = [LabelErrors("artist:<i>", 3, 0.0, "artist:<b>", 1)]
    html = render("label_errors.html", wrong=3, total=3, labels=labels, matrix="", failures=None)
    assert "&lt;i&gt;" in html
    assert "&lt;b&gt; (1)" in html
    assert "<b>" not in html


def test_wrong_labels_are_summarised_by_movement(retrieval: RetrievalResult) -> None:
    movements = movements_of_labels(retrieval, "genre:*")
    assert movements["artist:monet"] == "impressionism", "three of four of his images"
    matrix = confusion_matrix(nearest_neighbour_predictions(retrieval), movements)
    assert matrix.names == ["cubism", "impressionism"]
    assert matrix.counts.tolist() == [[0, 0], [1, 2]]


def test_movements_are_read_from_a_table(retrieval: RetrievalResult, tmp_path: Path) -> None:
    table = tmp_path / "movements.csv"
    table.write_text("artist,movement\nmonet,light\nartist:picasso,shape\n")
    assert movements_of_labels(retrieval, read_movements(str(table))) == {
        "artist:monet": "light",
        "artist:renoir": UNKNOWN,
        "artist:picasso": "shape",
    }
    assert read_movements("genre:*") == "genre:*"
    table.write_text("artist,school\nmonet,light\n")
    with pytest.raises(DataError, match="must have the columns artist and movement"):
        read_movements(str(table))
    with pytest.raises(ConfigError, match="which does not exist"):
        read_movements(str(tmp_path / "missing.csv"))


def test_without_movements_all_predictions_are_counted_by_label(retrieval: RetrievalResult) -> None:
    assert movements_of_labels(retrieval, "movement:*") == {}
    assert movements_of_labels(retrieval_of(QUERIES, GALLERY, "genre:*"), "genre:*") == {}
    matrix = confusion_matrix(nearest_neighbour_predictions(retrieval), {})
    assert matrix.names == ["monet", "picasso", "renoir"]
    assert matrix.counts.tolist() == [[1, 0, 2], [0, 2, 0], [0, 1, 0]]


def test_rare_classes_are_combined() -> None:
    names = [f"m{number:02d}" for number in range(60)]
    predictions = [Prediction("q", name, "m00") for i, name in enumerate(names) for _ in range(60 - i)]
    matrix = confusion_matrix(predictions, {})
    assert matrix.counts.shape == (MAX_CLASSES + 1, MAX_CLASSES + 1)
    assert matrix.names[-1] == OTHERS
    assert matrix.counts[-1, 0] == sum(range(1, 21)), "the twenty rarest"


def test_confusion_matrix_is_drawn_with_its_counts_in_the_colours_of_the_page() -> None:
    figure = plot_confusion_matrix(ConfusionMatrix(["new_york", "<b>"], np.array([[1234, 1], [0, 2]])), "Title")
    svg = inline_svg(figure, salt="matrix")
    texts = {text.text for text in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert {"Title", "new york", "<b>", "1234", "1", "2", "query", "nearest neighbour"} <= texts
    assert "currentColor" in svg
