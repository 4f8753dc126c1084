from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stylesim.core.errors import StylesimError
from stylesim.evaluation.evaluate_descriptors import RetrievalResult, evaluate_descriptors
from stylesim.evaluation.retrieval_spec import RetrievalSpec
from stylesim.report.label_errors import (
    OTHERS,
    UNKNOWN,
    LabelErrors,
    Prediction,
    confusion_matrix,
    errors_by_label,
    movements_of_labels,
    nearest_neighbour_predictions,
    plot_confusion_matrix,
    read_movements,
    worst_html,
)
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table

# (id, artist, genre, place on a line): the nearest neighbour is the gallery image that is nearest on it.
GALLERY = [("m", "monet", "impressionism", 0.0), ("r", "renoir", "impressionism", 1.0), ("p", "picasso", "cubism", 2.0)]
QUERIES = [
    ("1", "monet", "impressionism", 0.1),
    ("2", "monet", "impressionism", 0.9),  # taken for a Renoir
    ("3", "monet", "realism", 1.1),  # taken for a Renoir; Monet is an impressionist by most of his images
    ("4", "renoir", "impressionism", 1.9),  # taken for a Picasso
    ("5", "picasso", "cubism", 2.1),
    ("6", "picasso", "cubism", 2.2),
]


def retrieval_of(rows: list, gallery: list, relevant: str = "artist:*") -> RetrievalResult:
    def described(side: list) -> DescriptorSet:
        angles = np.array([place / 4 for *_, place in side])
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
        items = ((id, [f"artist:{a}", f"genre:{g}"], None, "s", n) for n, (id, a, g, _) in enumerate(side))
        return DescriptorSet(vectors, item_table(items))

    return evaluate_descriptors(described(rows), described(gallery), RetrievalSpec(["q"], ["g"], relevant, ks=(1,)))


@pytest.fixture(scope="module")
def retrieval() -> RetrievalResult:
    return retrieval_of(QUERIES, GALLERY)


def test_answers_are_those_of_the_nearest_neighbour(retrieval: RetrievalResult) -> None:
    answers = nearest_neighbour_predictions(retrieval)
    assert [answer.predicted for answer in answers] == [
        f"artist:{a}" for a in ("monet", *["renoir"] * 2, *["picasso"] * 3)
    ]
    assert [answer.correct for answer in answers] == [True, False, False, False, True, True]
    assert nearest_neighbour_predictions(retrieval_of(QUERIES, GALLERY, "*")) == [], (
        "an image has an artist and a genre"
    )


def test_the_worst_label_comes_first_with_what_it_is_taken_for(retrieval: RetrievalResult) -> None:
    answers = nearest_neighbour_predictions(retrieval)
    worst = errors_by_label(answers)
    assert worst == [
        LabelErrors("artist:renoir", 1, 0.0, "artist:picasso", 1),
        LabelErrors("artist:monet", 3, 1 - 2 / 3, "artist:renoir", 2),
        LabelErrors("artist:picasso", 2, 1.0, "", 0),
    ]
    html = worst_html([line._replace(taken_for="artist:<b>") for line in worst], shown=2)
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "picasso</th>" not in html


def test_wrong_artists_are_summed_up_into_movements(retrieval: RetrievalResult) -> None:
    answers = nearest_neighbour_predictions(retrieval)
    movement = movements_of_labels(retrieval, "genre:*")
    assert movement["artist:monet"] == "impressionism", "three of four of his images"
    matrix = confusion_matrix(answers, movement)
    assert matrix.names == ["cubism", "impressionism"]
    assert matrix.counts.tolist() == [[0, 0], [1, 2]]


def test_movements_can_be_given_in_a_table(retrieval: RetrievalResult, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("artist,movement\nmonet,light\nartist:picasso,shape\n")
    movements = read_movements(str(tmp_path / "m.csv"))
    assert movements_of_labels(retrieval, movements) == {
        "artist:monet": "light",
        "artist:renoir": UNKNOWN,
        "artist:picasso": "shape",
    }
    assert read_movements("genre:*") == "genre:*"
    (tmp_path / "m.csv").write_text("artist,school\nmonet,light\n")
    with pytest.raises(StylesimError, match="needs the columns artist and movement"):
        read_movements(str(tmp_path / "m.csv"))
    with pytest.raises(StylesimError, match="there is no such table"):
        read_movements(str(tmp_path / "gone.csv"))


def test_without_movements_labels_are_confused_right_answers_included(retrieval: RetrievalResult) -> None:
    answers = nearest_neighbour_predictions(retrieval)
    assert movements_of_labels(retrieval, "movement:*") == {}
    assert movements_of_labels(retrieval_of(QUERIES, GALLERY, "genre:*"), "genre:*") == {}
    matrix = confusion_matrix(answers, {})
    assert matrix.names == ["monet", "picasso", "renoir"]
    assert matrix.counts.tolist() == [[1, 0, 2], [0, 2, 0], [0, 1, 0]]


def test_rare_classes_are_summed_up(tmp_path: Path) -> None:
    names = [f"m{number:02d}" for number in range(60)]
    answers = [Prediction("q", name, "m00") for i, name in enumerate(names) for _ in range(60 - i)]
    matrix = confusion_matrix(answers, {})
    assert matrix.counts.shape == (41, 41)
    assert matrix.names[-1] == OTHERS
    assert matrix.counts[-1, 0] == sum(range(1, 21)), "the twenty rarest"
    plot_confusion_matrix(matrix, "Sixty classes", tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as picture:
        assert min(picture.size) > 800
