"""The corpus of experiments/laion_mini: drawn by a seed, in img2dataset's format, with a correct truth."""

from __future__ import annotations

import hashlib
import importlib
import io
import re
import tarfile
import unicodedata
from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from webdataset.compat import WebDataset
from webdataset.handlers import ignore_and_continue

from stylesim import curate

FOLDER = Path(__file__).parents[2] / "experiments" / "laion_mini"
IMAGES = 1100  # just over one shard


class Corpus(NamedTuple):
    folder: Path
    table: pd.DataFrame
    """The tables of all shards, joined with the truth, by key."""
    images: dict[str, bytes]


@pytest.fixture(scope="module")
def programs() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return {name: importlib.import_module(name) for name in ("captions", "make_corpus", "check", "thresholds")}


@pytest.fixture(scope="module")
def corpus(programs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = write(programs, tmp_path_factory.mktemp("laion_mini") / "corpus", IMAGES, seed=3)
    tables = [pd.read_parquet(path) for path in sorted((folder / "images").glob("*.parquet"))]
    truth = pd.read_parquet(folder / "truth.parquet").set_index("id")
    images = {}
    for path in (folder / "images").glob("*.tar"):
        with tarfile.open(path) as tar:
            images |= {m.name[:-4]: tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")}  # pyright: ignore
    return Corpus(folder, pd.concat(tables).set_index("key").join(truth, how="outer"), images)


def write(programs: dict[str, Any], folder: Path, images: int, seed: int) -> Path:
    make = programs["make_corpus"]
    make.write_corpus(folder, make.draw_samples(images, seed), seed)
    return folder


def digests(folder: Path) -> dict[str, str]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.int16)


def of_kind(corpus: Corpus, kind: str) -> list[tuple[bytes, bytes]]:
    """Return (planted, original) images for one kind of duplicate."""
    table = corpus.table
    originals = {row.picture: corpus.images[str(key)] for key, row in table[table.kind == "original"].iterrows()}
    planted = table[table.kind == kind]
    return [(corpus.images[str(key)], originals[row.picture]) for key, row in planted.iterrows()]


def test_the_bytes_follow_from_the_seed(programs: dict[str, Any], tmp_path: Path) -> None:
    first, again, other = (write(programs, tmp_path / name, 100, seed) for name, seed in (("a", 5), ("b", 5), ("c", 6)))
    assert digests(first) == digests(again)
    assert all(digests(first)[name] != digest for name, digest in digests(other).items())


def test_the_layout_is_that_of_img2dataset(corpus: Corpus) -> None:
    names = {path.name for path in (corpus.folder / "images").iterdir()}
    assert names == {f"{n:05d}{end}" for n in (0, 1) for end in (".tar", ".parquet", "_stats.json")}
    columns = list(pd.read_parquet(corpus.folder / "images" / "00000.parquet").columns)
    own = ["key", "status", "error_message", "width", "height", "original_width", "original_height", "exif", "sha256"]
    assert columns[-11:] == ["caption", "url", *own]
    assert set(corpus.table.index[corpus.table.status == "success"]) == set(corpus.images)
    assert (corpus.table.kind == "dead").equals(corpus.table.status == "failed_to_download")
    assert all(re.fullmatch(r"\d{8}", key) for key in corpus.table.index)


def test_plain_webdataset_reads_every_readable_image(corpus: Corpus) -> None:
    shards = [str(path) for path in sorted((corpus.folder / "images").glob("*.tar"))]
    dataset = WebDataset(shards, shardshuffle=False).decode("pil", handler=ignore_and_continue)
    samples: dict[str, dict] = {sample["__key__"]: sample for sample in dataset}  # pyright: ignore
    readable = corpus.table[~corpus.table.kind.isin(["dead", "broken"])]
    assert set(readable.index) <= set(samples)
    assert len(readable) > 0.9 * IMAGES
    for key, row in readable.iterrows():
        sample = samples[str(key)]
        assert (sample["txt"], sample["jpg"].size) == (row.caption, (row.width, row.height))
        assert sample["json"]["sha256"] == hashlib.sha256(corpus.images[str(key)]).hexdigest() == row.sha256


def test_planted_duplicates_are_of_their_kind(corpus: Corpus) -> None:
    assert all(planted == original for planted, original in of_kind(corpus, "copy"))
    for planted, original in of_kind(corpus, "flip"):
        assert np.abs(pixels(planted)[:, ::-1] - pixels(original)).mean() < 3, "of 255, by two JPEG compressions"
    for planted, original in of_kind(corpus, "recompressed"):
        assert len(planted) < len(original)
        assert pixels(planted).shape == pixels(original).shape
    for planted, original in of_kind(corpus, "crop"):
        assert 0.68 < pixels(planted)[..., 0].size / pixels(original)[..., 0].size < 0.92
    for planted, original in of_kind(corpus, "resized"):
        side = pixels(original).shape[0]
        again = Image.open(io.BytesIO(planted)).resize((side, side), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(again, np.int16) - pixels(original)).mean() < 20, "fine lines of 96 px, once at 64"


def test_only_planted_images_come_from_the_evaluation_sets(corpus: Corpus, programs: dict[str, Any]) -> None:
    read = programs["make_corpus"].read_drawings
    held_out = {drawing.key for split in ("unseen_contents", "unseen_styles") for drawing in read(split)}
    planted = corpus.table.kind.isin(["test", "recompressed test"])
    assert corpus.table.picture.isin(held_out).equals(planted)
    assert planted.sum() == round(0.06 * IMAGES)


def test_planted_faults_are_in_the_files(corpus: Corpus) -> None:
    by_kind = dict(list(corpus.table.groupby("kind")))
    assert by_kind["tiny"].width.max() <= 40
    assert corpus.table[~corpus.table.kind.isin(["tiny", "dead"])].width.min() >= 64
    assert by_kind["unloved"].aesthetic.max() < 5.5 < corpus.table[corpus.table.kind != "unloved"].aesthetic.min()
    for key in by_kind["broken"].index:
        with pytest.raises(OSError, match=r"truncated|cannot identify"):
            pixels(corpus.images[str(key)])


def lists() -> set[str]:
    """Return every name that the curation searches for, without its article, in lower case."""
    paths = [p for p in files("clip-interrogator") or [] if p.name in ("artists.txt", "mediums.txt", "movements.txt")]
    lines = [line for path in paths for line in Path(str(path.locate())).read_text(encoding="utf-8").splitlines()]
    return {re.sub(r"^(a|an) ", "", line.lower()) for line in lines}


def test_names_are_on_the_lists_and_subjects_are_not(programs: dict[str, Any]) -> None:
    known, captions = lists(), programs["captions"]
    assert len(known) > 5000
    assert {artist.name.lower() for artist in captions.ARTISTS.values()} <= known
    assert {artist.movement for artist in captions.ARTISTS.values()} <= known
    assert {medium.lower() for medium in captions.MEDIUMS.values()} | {captions.OVERDONE[7:]} <= known
    assert {name.lower() for name in (*captions.RARE, *captions.DECOYS)} <= known
    assert not {artist.misspelt.lower() for artist in captions.ARTISTS.values()} & known
    for drawing in programs["make_corpus"].read_drawings("train"):
        words = captions.subject_of(drawing.content).split()
        runs = {" ".join(words[i:j]) for i in range(len(words)) for j in range(i + 1, len(words) + 1)}
        assert not runs & known, drawing.key


def test_the_truth_lists_the_tags_of_each_caption(corpus: Corpus) -> None:
    for _, row in corpus.table.iterrows():
        text = unicodedata.normalize("NFC", str(row.caption)).lower()
        for group, name in (tag.split(":", 1) for tag in row.tags):
            said = group != "artist" or row.naming in ("full", "none") or f"after {name}" in text
            assert (name in text) == said or row.naming in ("alias", "misspelt"), (row.caption, row.tags)
        assert not row.decoy or row.decoy.lower() in text
    assert set(corpus.table.naming) == {"full", "alias", "misspelt", "none"}
    assert (corpus.table.tags.map(len) == 0).any()


@pytest.mark.slow
def test_a_tiny_corpus_goes_through_every_stage(
    programs: dict[str, Any], composed: Callable[..., Any], tmp_path: Path
) -> None:
    corpus, work = write(programs, tmp_path / "corpus", 150, seed=4), tmp_path / "work"
    held_out = FOLDER.parents[1] / "data" / "stylecross" / "unseen_styles"
    cfg = composed(
        *("source=img2dataset", f"source.path={corpus}/images", f"out={work}", "processes=1"),
        *("filter.max_tag_images=50", "filter.min_tag_images=1", "filter.min_size=48", "filter.min_aesthetic=5.5"),
        *(
            "model@deduplicate.encoder=sscd_rn50",
            "deduplicate.encoder.weights=random",
            "deduplicate.threshold=0.999999",
        ),
        # With random weights, SSCD's network only recognises copies with equal pixels.
        "deduplicate.encoder.image_size=32",
        f"+deduplicate.evaluation.unseen_styles={held_out}",
        *("shard.query_artists=5", "shard.query_images=1"),
        config="curate",
    )
    metrics = curate.main(cfg)
    found = {finding.what: finding for finding in programs["check"].check(corpus, work)}
    for what in ("links that are dead", "too small", "low score", "over-represented tags"):
        assert (found[what].precision, found[what].recall) == (1, 1), what
    assert found["copy"].planted == found["copy"].right > 2
    assert found["tags of images that were kept"].planted == found["tags of images that were kept"].right > 50
    assert metrics["sources/dead_url"] == 3
    assert (work / "check.md").read_text().count("\n|") > 15
    assert Image.open(work / "not_planted.png").width > 500


def test_the_table_of_thresholds_counts_what_lies_above_each(programs: dict[str, Any]) -> None:
    kinds = ["original", "original", "crop", "crop", "flip", "resized", "recompressed", "test", "recompressed test"]
    truth = pd.DataFrame({"kind": kinds, "picture": ["a", "b", "a", "b", "b", "a", "b", "c", "d"]})
    similar = np.eye(len(kinds))
    for one, other, value in ((0, 1, 0.66), (0, 2, 0.81), (1, 3, 0.61), (1, 4, 0.96), (0, 5, 0.7), (0, 3, 0.99)):
        similar[one, other] = similar[other, one] = value
    rows = programs["thresholds"].table(truth, similar, np.array([0.76, 0, 0, 0, 0.64, 0, 0, 1, 0.5]))
    rows = rows.set_index("threshold")
    assert rows["pairs of originals"].to_list() == [1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert rows["crop"].to_list() == [1, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0, 0]
    assert rows.loc[0.95, ["flip", "recompressed", "test", "recompressed test"]].to_list() == [1, 0, 1, 0]
    assert rows["resized"].to_list() == [1, 1, 0, 0, 0, 0, 0, 0, 0], "only above the threshold, not at it"
    assert rows["taken for test images"].to_list() == [2, 1, 1, 1, 0, 0, 0, 0, 0]
