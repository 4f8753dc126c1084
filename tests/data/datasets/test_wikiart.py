"""WikiArt, as the public archive and the published table lay it out."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from corpus import encoded_image
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from stylesim import evaluate
from stylesim.core.errors import StylesimError
from stylesim.core.targets import check_targets
from stylesim.data.datasets.folder import find_samples
from stylesim.data.datasets.wikiart import WikiArt, match

FOLDER = "/fs/elsewhere/wikiart/"  # the table's paths are of the machine that wrote it


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two artists with a database and queries, one with queries alone; names that the archive spells differently."""
    files = {
        "Impressionism/claude-monet_lilies-1.jpg": 1,
        "Impressionism/claude-monet_lilies-2.jpg": 2,
        "Impressionism/claude-monet_not_detected_237588-1901.jpg": 3,
        "Cubism/juan-gris_guitar.jpg": 4,
        "Cubism/juan-gris_violin.jpg": 5,
        "Cubism/nobody_alone.jpg": 6,
        "Cubism/a-b_c.jpg": 7,
        "Cubism/a_b_c.jpg": 8,
    }
    for name, number in files.items():
        (tmp_path / "wikiart" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "wikiart" / name).write_bytes(encoded_image(number))
    (tmp_path / "wikiart" / "Impressionism" / "claude-monet_broken.jpg").write_bytes(encoded_image(9)[:300])
    rows = [
        ("claude-monet", "database", "Impressionism/claude-monet_lilies-1.jpg"),
        ("claude-monet", "database", "Impressionism/claude-monet_broken.jpg"),
        ("claude-monet", "query", "Impressionism/claude-monet_lilies-2.jpg"),
        ("claude-monet", "query", "Impressionism/claude-monet_not-detected-237588-1901.jpg"),
        ("juan-gris", "database", "Cubism/juan-gris_guitar.jpg"),
        ("juan-gris", "query", "Cubism/juan-gris_violin.jpg"),
        ("nobody", "query", "Cubism/nobody_alone.jpg"),
        ("juan-gris", "query", "Cubism/a-b-c.jpg"),  # either of two files
        ("juan-gris", "query", "Cubism/juan-gris_gone.jpg"),
        ("juan-gris", "train", "Cubism/juan-gris_guitar.jpg"),
    ]
    frame = pd.DataFrame(rows, columns=["artist", "split", "path"]).assign(
        name=lambda f: f["path"].str.split("/").str[-1]
    )
    frame["path"] = FOLDER + frame["path"]
    frame.to_csv(tmp_path / "wikiart" / "wikiart.csv", index=False)
    return tmp_path / "wikiart"


def test_names_are_corrected_and_queries_without_an_artist_are_left_out(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    relevant = {"wikiart": "artist:*", "wikiart_genre": "genre:*"}
    with caplog.at_level(logging.INFO):
        specs = WikiArt(str(root), spec=SimpleNamespace, relevant=relevant, tables=str(tmp_path)).retrieval_sets()
    assert {name: spec.relevant for name, spec in specs.items()} == relevant
    queries, database = (find_samples(location) for location in (*specs["wikiart"].query, *specs["wikiart"].gallery))
    assert {item.id: item.tags for item in queries} == {
        "wikiart-query/Cubism/juan-gris_violin.jpg": ["artist:juan-gris", "genre:Cubism"],
        "wikiart-query/Impressionism/claude-monet_lilies-2.jpg": ["artist:claude-monet", "genre:Impressionism"],
        "wikiart-query/Impressionism/claude-monet_not_detected_237588-1901.jpg": [
            "artist:claude-monet",
            "genre:Impressionism",
        ],
    }
    assert len(database) == 3
    said = caplog.text
    assert "6 images, 3 queries and a gallery of 3" in said
    assert "wikiart: 2 x artist:*, chance 55.56%" in said  # (2 + 2 + 1) / 9
    assert "1 names differ" in said
    assert "2 rows have no file, or several candidates: Cubism/a-b-c.jpg, Cubism/juan-gris_gone.jpg" in said
    assert "1 queries are left out, because the database has nothing by their 1 artists" in said


def test_a_table_without_paths_is_matched_by_name(root: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(root / "wikiart.csv").drop(columns="path")
    frame.to_csv(tmp_path / "names.csv", index=False)
    module = WikiArt(str(root), table=str(tmp_path / "names.csv"), spec=SimpleNamespace, tables=str(tmp_path))
    (query,) = module.retrieval_sets()["wikiart"].query
    assert len(find_samples(query)) == 3


def test_the_command_evaluates_it_and_counts_the_damaged_file(
    root: Path, composed: Callable[..., DictConfig], tmp_path: Path
) -> None:
    cfg = composed("data=wikiart", f"data.root={root}", "model=color_histogram", "device=cpu", config="evaluate")
    check_targets(cfg)
    metrics = evaluate.main(cfg)
    assert metrics["wikiart/queries"] == 3
    assert metrics["wikiart/gallery"] == 2, "without the damaged image"
    assert metrics["wikiart_genre/recall@1"] == metrics["wikiart/recall@1"], "here each genre has one artist"
    assert "claude-monet_broken.jpg" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "wikiart.csv").unlink(), "put the table there that the CSD repository publishes"),
        (lambda root: (root / "wikiart.csv").write_text("name,split\na,query\n"), "no column 'artist'"),
        (
            lambda root: (root / "wikiart.csv").write_text("name,artist,split\nz.jpg,a,query\nz.jpg,a,database\n"),
            "no query in common",
        ),
    ],
)
def test_missing_files_columns_and_folders_are_refused(
    root: Path, change: Callable[[Path], object], message: str
) -> None:
    change(root)
    with pytest.raises(StylesimError, match=message):
        WikiArt(str(root), spec=SimpleNamespace).retrieval_sets()
    with pytest.raises(StylesimError, match="there is no folder"):
        WikiArt(str(root / "gone"), spec=SimpleNamespace).retrieval_sets()


names = st.lists(st.text("ab-_", min_size=1, max_size=3), max_size=8, unique=True)


@given(names, names)
def test_matches_are_one_to_one_exact_first_and_never_ambiguous(wanted: list[str], files: list[str]) -> None:
    found = match(wanted, files)
    assert len(set(found.values())) == len(found)
    for row, name in enumerate(wanted):
        if name in files:
            assert found[row] == name
        elif row in found:
            assert found[row].replace("_", "-") == name.replace("_", "-")
            rivals = [f for f in files if f.replace("_", "-") == name.replace("_", "-") and f not in wanted]
            assert rivals == [found[row]]
    assert found == match(wanted, files[::-1])


def test_names_of_another_unicode_form_and_of_windows_are_matched(tmp_path: Path) -> None:
    names = [unicodedata.normalize("NFD", f"Cubism/josé_{number}.jpg") for number in range(2)]
    (tmp_path / "Cubism").mkdir()
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded_image(number))
    (tmp_path / "wikiart.csv").write_text(
        "path,artist,split\nCubism\\josé_0.jpg,josé,Database\nCubism\\josé_1.jpg,josé,Query \n", encoding="utf-8"
    )
    module = WikiArt(str(tmp_path), spec=SimpleNamespace, tables=str(tmp_path / "run"))
    (query,) = find_samples(module.retrieval_sets()["wikiart"].query[0])
    assert (query.id, query.tags) == ("wikiart-query/Cubism/josé_1.jpg", ["artist:josé", "genre:Cubism"])
    assert query.image == tmp_path / names[1]
