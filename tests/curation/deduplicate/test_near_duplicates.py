"""Of planted copies one stays, and what the stage decides is what a table of all pairs decides."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from planted import Thumbnails, pictures, recompressed, save, stage_of

from stylesim.core.errors import StylesimError
from stylesim.curation.deduplicate import duplicate_groups
from stylesim.curation.deduplicate.contamination_note import checked_against
from stylesim.curation.deduplicate.near_duplicates import deduplicate
from stylesim.curation.stage import Stage, read_stage
from stylesim.retrieval.descriptor_set import DescriptorSet

THRESHOLD = 0.95


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures; 0 also larger and recompressed, 1 as the same bytes, 2 the same pixels; and a test set with 3."""
    folder = tmp_path_factory.mktemp("corpus")
    whole = pictures(8)
    for number, image in enumerate(whole):
        save(image, folder / f"{number}.png")
    save(whole[0].resize((240, 240)), folder / "0-larger.png")
    save(recompressed(whole[0]), folder / "0-again.jpg", quality=80)
    shutil.copy(folder / "1.png", folder / "1-copy.png")
    save(whole[2], folder / "2-pixels.webp", lossless=True)
    save(recompressed(whole[3]), folder / "test" / "x" / "held.png")
    save(whole[7].rotate(90), folder / "test" / "x" / "another.png")
    (folder / "broken.jpg").write_bytes((folder / "0-again.jpg").read_bytes()[:300])
    save(Image.new("RGB", (64, 64), "white"), folder / "blank.png")  # its thumbnail is zero about its mean
    return folder


def rows_of(corpus: Path) -> list[dict[str, Any]]:
    rows = [
        {
            "id": file.stem,
            "image": str(file),
            "caption": file.name,
            "tags": [f"artist:{file.stem[0]}", f"as:{file.stem}"],
        }
        for file in sorted(corpus.glob("*.*"))
    ]
    return [*rows, {"id": "url", "url": "gone", "tags": ["artist:0"]}]


def run(source: Path, folder: Path, corpus: Path | None = None, **options: Any) -> dict[str, Any]:
    evaluation = {"evaluation": {"held-out": str(corpus / "test")}} if corpus else {}
    stage = Stage(folder, evaluation | options, source, processes=1, show=False)
    return deduplicate(stage, encoder=Thumbnails, threshold=THRESHOLD, **evaluation, **options)


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out, rows = tmp_path_factory.mktemp("out"), rows_of(corpus)
    source = stage_of([rows[:5], rows[5:], []], out / "3-filter")
    return run(source, out / "4-deduplicate", corpus), out / "4-deduplicate"


def test_of_copies_the_largest_stays_with_the_tags_of_all(done: tuple[dict[str, Any], Path]):
    counts, folder = done
    kept = {row["id"]: row for row in read_stage(folder).to_pylist()}
    assert list(kept) == ["0-larger", "1", "2", "4", "5", "6", "7"]
    assert kept["0-larger"]["tags"] == ["artist:0", "as:0-larger", "as:0-again", "as:0"]
    assert kept["1"]["tags"] == ["artist:1", "as:1", "as:1-copy"]
    assert (kept["0-larger"]["width"], kept["0-larger"]["height"]) == (240, 240)
    assert kept["5"]["caption"] == "5.png"
    expected = {
        "before": 15,
        "images": 7,
        "unreadable": 2,
        "undescribed": 1,
        "contaminated": 1,
        "contaminated_held-out": 1,
        "near_duplicates": 2,
        "same_pixels": 2,
        "same_bytes": 1,
        "components": 1,
        "largest_component": 3,
        "pairs": 3,
    }
    assert expected.items() <= counts.items()
    assert counts["before"] - counts["images"] == sum(
        counts[name] for name in ("unreadable", "undescribed", "contaminated", "near_duplicates", "same_pixels")
    )


def test_whitened_descriptors_decide_as_numpys_do(done: tuple[dict[str, Any], Path], corpus: Path, tmp_path: Path):
    source = done[1].parent / "3-filter"
    run(source, tmp_path / "4", corpus, whiten=5)
    described = DescriptorSet.load(tmp_path / "4/descriptors")
    vectors = np.asarray(described.descriptors, dtype=np.float64)
    along = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[0][:, :5]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    alike = {
        frozenset((described.ids[a], described.ids[b]))
        for a, b in zip(*np.nonzero(along @ along.T > THRESHOLD), strict=True)
    }
    reasons = {r["id"]: r["reason"] for f in (tmp_path / "4").glob("dropped-*") for r in pq.read_table(f).to_pylist()}
    told = {frozenset((n, r.split()[-1])) for n, r in reasons.items() if r.startswith("near-duplicate of")}
    assert told
    assert told <= alike
    with pytest.raises(StylesimError, match=r"deduplicate\.whiten=400 needs more than 401 images, got \d+"):
        run(source, tmp_path / "again", corpus, whiten=400)


def test_every_dropped_image_is_named_with_its_reason(done: tuple[dict[str, Any], Path]):
    reasons = {r["id"]: r["reason"] for f in sorted(done[1].glob("dropped-*")) for r in pq.read_table(f).to_pylist()}
    assert reasons.pop("broken").startswith("unreadable: The image cannot be decoded")
    assert reasons == {
        "0": "near-duplicate of 0-larger",
        "0-again": "near-duplicate of 0-larger",
        "1-copy": "the pixels of 1",
        "2-pixels": "the pixels of 2",
        "3": "contaminated: within 0.95 of held-out",
        "blank": "undescribed: its descriptor is not finite, or zero",
        "url": "no image: only its URL is known",
    }


def test_the_note_says_what_the_images_were_cleared_of(done: tuple[dict[str, Any], Path], tmp_path: Path):
    assert checked_against(done[1]) == [
        "cleared of held-out: 1 images within 0.95 (inner product of thumbnails, none, at 48 px) of its 2 were dropped"
    ]
    assert checked_against(tmp_path) == checked_against("https://example.org/shards") == []
    (tmp_path / "contamination.json").write_text("{}")
    with pytest.raises(StylesimError, match="cannot be read"):
        checked_against(tmp_path)


def test_components_are_those_of_the_table_of_products(done: tuple[dict[str, Any], Path]):
    """At a threshold so low that pictures hang together that are no copies."""
    described = DescriptorSet.load(done[1] / "descriptors")
    vectors = np.asarray(described.descriptors, dtype=np.float64)
    reachable = vectors @ vectors.T > 0.45
    for _ in range(len(vectors)):
        reachable = (reachable.astype(int) @ reachable.astype(int)) > 0
    found = duplicate_groups.group_duplicates(
        described.descriptors,
        np.arange(len(vectors)),
        np.ones(len(vectors), dtype=bool),
        0.45,
        None,
        done[1] / "note",
        False,
    )
    assert found.labels.tolist() == reachable.argmax(axis=1).tolist()
    assert found.counts["pairs"] == (np.triu(vectors @ vectors.T, 1) > 0.45).sum() > 3
    assert found.labels.max() > 0


def test_what_is_there_to_look_at(done: tuple[dict[str, Any], Path]):
    for name in ("components.png", "similarities.png", "largest.png"):
        assert min(Image.open(done[1] / name).size) > 100
    assert not list(done[1].glob(".*"))


@pytest.mark.parametrize("at", ["embed", "group_duplicates", "_write_parts", "finish"])
def test_stopped_anywhere_it_ends_with_the_same_bytes(
    at: str, done: tuple[dict[str, Any], Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    where = {"embed": "stylesim.evaluation.embed.embed", "finish": "stylesim.curation.stage.Stage.finish"}
    source = shutil.copytree(done[1].parent / "3-filter", tmp_path / "3-filter")
    with monkeypatch.context() as patch:
        if at == "finish":  # of the stage, not of its fingerprints
            finish: Callable[..., Any] = Stage.finish
            patch.setattr(Stage, "finish", lambda s, *a, **k: stop() if "4-" in s.folder.name else finish(s, *a, **k))
        else:
            patch.setattr(where.get(at, f"stylesim.curation.deduplicate.near_duplicates.{at}"), stop)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "4-deduplicate", corpus)
    with monkeypatch.context() as patch:
        patch.setattr("stylesim.curation.deduplicate.near_duplicates.fingerprints", stop)  # not done again
        assert run(source, tmp_path / "4-deduplicate", corpus) == done[0]
    ours, theirs = (
        {f.relative_to(folder): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
        for folder in (tmp_path / "4-deduplicate", done[1])
    )
    assert ours == {name: data for name, data in theirs.items() if name.name != "note"}


def test_pairs_go_on_from_their_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((60, 3)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    whole = duplicate_groups.group_duplicates(
        x, np.arange(60), np.ones(60, dtype=bool), 0.97, None, tmp_path / "a", False
    )
    from stylesim.retrieval import similar_pairs

    every = similar_pairs.pairs_above
    monkeypatch.setattr(duplicate_groups, "SAVE_EVERY", 0)

    def stops(*tables: Any, **options: Any) -> Any:
        for block in every(*tables, **options, block=8):
            yield block
            if block.done > 20:
                raise KeyboardInterrupt

    monkeypatch.setattr(similar_pairs, "pairs_above", stops)
    with pytest.raises(KeyboardInterrupt):
        duplicate_groups.group_duplicates(x, np.arange(60), np.ones(60, dtype=bool), 0.97, None, tmp_path / "b", False)
    starts = []
    monkeypatch.setattr(similar_pairs, "pairs_above", lambda *t, **o: starts.append(o["start"]) or every(*t, **o))
    again = duplicate_groups.group_duplicates(
        x, np.arange(60), np.ones(60, dtype=bool), 0.97, None, tmp_path / "b", False
    )
    assert starts[0] >= 16
    assert again.labels.tolist() == whole.labels.tolist()
    assert again.similarities.tolist() == whole.similarities.tolist()


def test_an_index_and_equal_hashes_find_what_exact_search_finds(corpus: Path, done: Any, tmp_path: Path):
    pytest.importorskip("faiss")
    counts = run(done[1].parent / "3-filter", tmp_path / "4-deduplicate", corpus, index="hnsw")
    assert counts == done[0] | {"index_recall": 1.0}


def test_a_threshold_that_is_far_too_low_is_warned_of(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = stage_of([rows_of(corpus)], tmp_path / "3-filter")
    run(source, tmp_path / "usual")
    assert "threshold" not in caplog.text
    deduplicate(Stage(tmp_path / "all", {}, source, processes=1, show=False), encoder=Thumbnails, threshold=-1 + 1e-6)
    assert re.search(
        r"\d+ of \d+ images were dropped as near-duplicates.*threshold=-0.999999 may be too low", caplog.text
    )


def test_nothing_in_is_nothing_out_and_a_bad_encoder_is_refused(corpus: Path, tmp_path: Path):
    nothing = stage_of([[], [{"id": "url"}]], tmp_path / "3-filter")
    counts = run(nothing, tmp_path / "4-deduplicate", corpus)
    assert (counts["before"], counts["images"], counts["unreadable"]) == (1, 0, 1)
    assert checked_against(tmp_path / "4-deduplicate") == []

    def untrained() -> Thumbnails:
        encoder = Thumbnails()
        encoder.provenance = type(encoder.provenance)("csd", "random", trained_head=False)
        return encoder

    some = stage_of([rows_of(corpus)], tmp_path / "some")
    with pytest.raises(StylesimError, match="never been trained"):
        deduplicate(Stage(tmp_path / "other", {}, some, processes=1, show=False), encoder=untrained)
    with pytest.raises(StylesimError, match="no folder"):
        run(some, tmp_path / "third", tmp_path)
