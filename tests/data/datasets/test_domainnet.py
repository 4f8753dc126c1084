"""DomainNet: its split by word vectors or by a list of classes."""

from __future__ import annotations

import gzip
import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from corpus import encoded_image

from stylesim.core.conf import conf_dir
from stylesim.core.errors import StylesimError
from stylesim.data.datasets.domainnet import DomainNet, split_classes
from stylesim.data.datasets.folder import find_samples
from stylesim.data.datasets.word_vectors import mean_vectors, two_means

CLASSES = {"cat": (1, 0.1), "The_Dog": (0.9, 0), "t-shirt": (0, 1), "wine_bottle": (0.1, 1), "cup": (0, 0.9)}
DOMAINS = ("clipart", "painting", "quickdraw", "sketch")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for d, domain in enumerate(DOMAINS):
        for c, name in enumerate(CLASSES):
            folder = tmp_path / "domainnet" / domain / name
            folder.mkdir(parents=True)
            for number in range(3):
                (folder / f"{domain}_{number:03d}.jpg").write_bytes(encoded_image(100 * d + 10 * c + number))
    (tmp_path / "domainnet" / "clipart_train.txt").write_text("as published beside the folders")
    return tmp_path / "domainnet"


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """GloVe's format, with further words."""
    words = {"cat": (1, 0.1), "dog": (0.9, 0), "the": (0.9, 0.1), "t": (0, 2), "shirt": (0, 1), "cup": (0, 0.9)}
    words |= {"wine": (0.2, 1), "bottle": (0, 1), "zebra": (5, 5)}
    (tmp_path / "glove.txt").write_text("".join(f"{w} {x} {y}\n" for w, (x, y) in words.items()))
    return tmp_path / "glove.txt"


def sides(root: Path, **options: Any) -> tuple[list, list]:
    spec = DomainNet(str(root), spec=SimpleNamespace, **options).retrieval_sets()["domainnet"]
    assert spec.relevant == "domain:*"
    return find_samples(spec.query[0]), find_samples(spec.gallery[0])


def test_the_smaller_cluster_of_classes_gives_the_queries(
    root: Path, vectors: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        queries, gallery = sides(root, vectors=str(vectors))
    assert {item.content for item in queries} == {"cat", "The_Dog"}
    assert {item.content for item in gallery} == {"t-shirt", "wine_bottle", "cup"}
    assert {tag for item in queries for tag in item.tags} == {"domain:clipart", "domain:painting", "domain:sketch"}
    said = caplog.text
    assert "45 images, 18 queries and a gallery of 27" in said
    assert "3 x domain:*, chance 33.33%" in said
    assert "approximation" in said


def test_queries_are_a_seeded_sample(root: Path, vectors: Path) -> None:
    def ids(**options: Any) -> set[str]:
        return {item.id for item in sides(root, vectors=str(vectors), **options)[0]}

    whole, some = ids(n_queries=None), ids(n_queries=7)
    assert len(some) == 7
    assert some < whole
    assert some == ids(n_queries=7)
    assert some < ids(n_queries=9), "a larger sample only adds"
    assert some != ids(n_queries=7, seed=1)


def test_a_given_list_of_classes_needs_no_vectors(root: Path, tmp_path: Path) -> None:
    (tmp_path / "query.txt").write_text("cup\n\nt-shirt\n")
    queries, gallery = sides(root, query_classes=str(tmp_path / "query.txt"))
    assert {item.content for item in queries} == {"cup", "t-shirt"}
    assert not {item.content for item in gallery} & {"cup", "t-shirt"}
    (tmp_path / "query.txt").write_text("cupp\n")
    with pytest.raises(StylesimError, match="'cupp', and the nearest ones are cup"):
        sides(root, query_classes=str(tmp_path / "query.txt"))
    (tmp_path / "query.txt").write_text("\n".join(CLASSES))
    with pytest.raises(StylesimError, match="45 queries and 0 gallery"):
        sides(root, query_classes=str(tmp_path / "query.txt"))


def test_a_missing_split_and_a_folder_of_another_layout_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StylesimError, match="never published"):
        sides(root)
    (tmp_path / "flat").mkdir()
    with pytest.raises(StylesimError, match="is not DomainNet"):
        sides(tmp_path / "flat")
    assert "approximation" in (conf_dir() / "data" / "domainnet.yaml").read_text()


def test_a_class_without_a_vector_stays_in_the_gallery(vectors: Path) -> None:
    of_queries, unknown = split_classes(["cat", "cup", "t-shirt", "qqq_xx"], vectors)
    assert of_queries == {"cat"}
    assert unknown == ["qqq_xx"]


def test_formats_of_word_vectors_are_recognised_by_content(vectors: Path, tmp_path: Path) -> None:
    spellings = {"a": [["The_Dog"], ["the", "dog", "nothing"]], "b": [["cup"]], "c": [["nothing"]]}
    glove = mean_vectors(vectors, spellings)
    assert glove.keys() == {"a", "b"}
    the, dog = np.array([0.9, 0.1]), np.array([1.0, 0.0])
    expected = the / np.linalg.norm(the) + dog
    np.testing.assert_allclose(glove["a"], expected / np.linalg.norm(expected))
    with gzip.open(tmp_path / "word2vec.txt.gz", "wt") as file:
        file.write("9 2\n" + vectors.read_text().replace("\n", " \n"))
    word2vec = mean_vectors(tmp_path / "word2vec.txt.gz", spellings)
    np.testing.assert_array_equal(np.stack(list(word2vec.values())), np.stack(list(glove.values())))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cat \x00\x01\x02\n", "has no word vectors"),
        (b"dog 1 2\n", "has no word vectors"),
        (b"cat 1 2\ncup 1 2 3\n", "has no word vectors"),
        (b"dog 1 2\ncat 1 x\n", "line 2: expected numbers"),
    ],
)
def test_files_without_word_vectors_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(StylesimError, match=words):
        mean_vectors(tmp_path / "v.txt", {"cat": [["cat"]], "cup": [["cup"]]})
    with pytest.raises(StylesimError, match="cannot be read"):
        mean_vectors(tmp_path / "gone.txt", {"cat": [["cat"]]})


def test_two_means_finds_the_best_of_all_halves() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1, (4, 3)), rng.normal(3, 1, (6, 3))])

    def scatter(second: np.ndarray) -> float:
        return sum(((side - side.mean(axis=0)) ** 2).sum() for side in (points[second], points[~second]))

    halves = (np.array([bits >> i & 1 for i in range(10)], dtype=bool) for bits in range(1, 1023))
    assert scatter(two_means(points)) == pytest.approx(min(scatter(half) for half in halves))
    with pytest.raises(StylesimError, match="at least two vectors that differ"):
        two_means([[1.0, 2.0], [1.0, 2.0]])


def test_names_that_are_not_utf8_and_hidden_folders_do_no_harm(root: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(root / "sketch") + b"/caf\xe9/\xe9.jpg"))
    odd.parent.mkdir()
    odd.write_bytes(encoded_image(1))
    (root / ".cache" / "cat").mkdir(parents=True)
    (root / ".cache" / "cat" / "x.jpg").write_bytes(encoded_image(1))
    (tmp_path / "list.txt").write_text("cat\r\n cup\n", encoding="utf-16")
    queries, gallery = sides(root, query_classes=str(tmp_path / "list.txt"))
    assert {sample.content for sample in queries} == {"cat", "cup"}
    assert [sample.image for sample in gallery if sample.content == r"caf\xe9"] == [odd]
    assert not any("cache" in sample.id for sample in queries + gallery)
