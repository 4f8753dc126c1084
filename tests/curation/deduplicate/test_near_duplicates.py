"""One image of each group of planted copies is kept, and the groups are those of a table of all pairs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from duplicate_images import ThumbnailEncoder, recompress, save, stylecross_images
from PIL import Image
from stage_files import read_dropped, read_files, write_stage

from stylesim.core.errors import StylesimError
from stylesim.curation.deduplicate import duplicate_groups
from stylesim.curation.deduplicate.contamination_note import checked_against
from stylesim.curation.deduplicate.near_duplicates import deduplicate
from stylesim.curation.stage import Stage, read_stage
from stylesim.retrieval.descriptor_set import DescriptorSet

THRESHOLD = 0.95


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images: 0 also larger and recompressed, 1 with the same bytes, 2 with the same pixels, 3 in a test set."""
    folder = tmp_path_factory.mktemp("corpus")
    images = stylecross_images(8)
    for number, image in enumerate(images):
        save(image, folder / f"{number}.png")
    save(images[0].resize((240, 240)), folder / "0-larger.png")
    save(recompress(images[0]), folder / "0-again.jpg", quality=80)
    shutil.copy(folder / "1.png", folder / "1-copy.png")
    save(images[2], folder / "2-pixels.webp", lossless=True)
    save(recompress(images[3]), folder / "test" / "x" / "held.png")
    save(images[7].rotate(90), folder / "test" / "x" / "another.png")
    (folder / "broken.jpg").write_bytes((folder / "0-again.jpg").read_bytes()[:300])
    save(Image.new("RGB", (64, 64), "white"), folder / "blank.png")  # its thumbnail is zero after centring
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
    return deduplicate(stage, encoder=ThumbnailEncoder, threshold=THRESHOLD, **evaluation, **options)


@pytest.fixture(scope="module")
def done(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    out, rows = tmp_path_factory.mktemp("out"), rows_of(corpus)
    source = write_stage([rows[:5], rows[5:], []], out / "3-filter")
    return run(source, out / "4-deduplicate", corpus), out / "4-deduplicate"


def test_the_largest_copy_is_kept_with_the_tags_of_all(done: tuple[dict[str, Any], Path]):
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
        "not_embedded": 1,
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
        counts[name] for name in ("unreadable", "not_embedded", "contaminated", "near_duplicates", "same_pixels")
    )


def test_whitening_equals_a_computation_with_numpy(done: tuple[dict[str, Any], Path], corpus: Path, tmp_path: Path):
    source = done[1].parent / "3-filter"
    run(source, tmp_path / "4", corpus, whiten=5)
    described = DescriptorSet.load(tmp_path / "4/descriptors")
    vectors = np.asarray(described.descriptors, dtype=np.float64)
    whitened = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[0][:, :5]
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    similar = {
        frozenset((described.ids[a], described.ids[b]))
        for a, b in zip(*np.nonzero(whitened @ whitened.T > THRESHOLD), strict=True)
    }
    reasons = read_dropped(tmp_path / "4").items()
    found = {
        frozenset((name, reason.split()[-1])) for name, reason in reasons if reason.startswith("near-duplicate of")
    }
    assert found
    assert found <= similar
    with pytest.raises(StylesimError, match=r"deduplicate\.whiten=400 needs more than 401 images, got \d+"):
        run(source, tmp_path / "again", corpus, whiten=400)


def test_every_dropped_image_is_named_with_its_reason(done: tuple[dict[str, Any], Path]):
    reasons = read_dropped(done[1])
    assert reasons.pop("broken").startswith("unreadable: The image cannot be decoded")
    assert reasons == {
        "0": "near-duplicate of 0-larger",
        "0-again": "near-duplicate of 0-larger",
        "1-copy": "the pixels of 1",
        "2-pixels": "the pixels of 2",
        "3": "contaminated: within 0.95 of held-out",
        "blank": "not embedded: its descriptor is not finite, or zero",
        "url": "no image: only its URL is known",
    }


def test_the_note_says_which_sets_the_images_were_cleared_of(done: tuple[dict[str, Any], Path], tmp_path: Path):
    assert checked_against(done[1]) == [
        "cleared of held-out: 1 images within 0.95 (inner product of thumbnails, none, at 48 px) of its 2 were dropped"
    ]
    assert checked_against(tmp_path) == checked_against("https://example.org/shards") == []
    (tmp_path / "contamination.json").write_text("{}")
    with pytest.raises(StylesimError, match="cannot be read"):
        checked_against(tmp_path)


def test_components_are_those_of_the_matrix_of_inner_products(done: tuple[dict[str, Any], Path]):
    """The threshold is so low that images are connected that are not copies."""
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
        done[1] / "state",
        False,
    )
    assert found.labels.tolist() == reachable.argmax(axis=1).tolist()
    assert found.counts["pairs"] == (np.triu(vectors @ vectors.T, 1) > 0.45).sum() > 3
    assert found.labels.max() > 0


def test_previews_are_written(done: tuple[dict[str, Any], Path]):
    for name in ("components.png", "similarities.png", "largest.png"):
        assert min(Image.open(done[1] / name).size) > 100
    assert not list(done[1].glob(".*"))


@pytest.mark.parametrize("at", ["embed", "group_duplicates", "_write_parts", "finish"])
def test_an_interrupted_stage_ends_with_the_same_bytes(
    at: str, done: tuple[dict[str, Any], Path], corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    where = {"embed": "stylesim.evaluation.embed.embed", "finish": "stylesim.curation.stage.Stage.finish"}
    source = shutil.copytree(done[1].parent / "3-filter", tmp_path / "3-filter")
    with monkeypatch.context() as patch:
        if at == "finish":  # the stage, not its fingerprints
            finish: Callable[..., Any] = Stage.finish
            patch.setattr(Stage, "finish", lambda s, *a, **k: stop() if "4-" in s.folder.name else finish(s, *a, **k))
        else:
            patch.setattr(where.get(at, f"stylesim.curation.deduplicate.near_duplicates.{at}"), stop)
        with pytest.raises(KeyboardInterrupt):
            run(source, tmp_path / "4-deduplicate", corpus)
    with monkeypatch.context() as patch:
        patch.setattr("stylesim.curation.deduplicate.embedded_corpus.fingerprints", stop)  # they are not computed again
        assert run(source, tmp_path / "4-deduplicate", corpus) == done[0]
    expected = {name: data for name, data in read_files(done[1]).items() if name != "state"}
    assert read_files(tmp_path / "4-deduplicate") == expected


def test_an_interrupted_comparison_continues_from_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((60, 3)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    whole = duplicate_groups.group_duplicates(
        x, np.arange(60), np.ones(60, dtype=bool), 0.97, None, tmp_path / "a", False
    )
    from stylesim.retrieval import similar_pairs

    pairs_above = similar_pairs.pairs_above
    monkeypatch.setattr(duplicate_groups, "SAVE_EVERY", 0)

    def interrupted(*tables: Any, **options: Any) -> Any:
        for block in pairs_above(*tables, **options, block=8):
            yield block
            if block.done > 20:
                raise KeyboardInterrupt

    monkeypatch.setattr(similar_pairs, "pairs_above", interrupted)
    with pytest.raises(KeyboardInterrupt):
        duplicate_groups.group_duplicates(x, np.arange(60), np.ones(60, dtype=bool), 0.97, None, tmp_path / "b", False)
    starts = []
    monkeypatch.setattr(similar_pairs, "pairs_above", lambda *t, **o: starts.append(o["start"]) or pairs_above(*t, **o))
    again = duplicate_groups.group_duplicates(
        x, np.arange(60), np.ones(60, dtype=bool), 0.97, None, tmp_path / "b", False
    )
    assert starts[0] >= 16
    assert again.labels.tolist() == whole.labels.tolist()
    assert again.similarities.tolist() == whole.similarities.tolist()


def test_an_index_finds_the_same_pairs_as_exact_search(corpus: Path, done: Any, tmp_path: Path):
    pytest.importorskip("faiss")
    counts = run(done[1].parent / "3-filter", tmp_path / "4-deduplicate", corpus, index="hnsw")
    assert counts == done[0] | {"index_recall": 1.0}


def test_a_threshold_that_is_far_too_low_is_warned_of(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    source = write_stage([rows_of(corpus)], tmp_path / "3-filter")
    run(source, tmp_path / "usual")
    assert "threshold" not in caplog.text
    deduplicate(
        Stage(tmp_path / "all", {}, source, processes=1, show=False), encoder=ThumbnailEncoder, threshold=-1 + 1e-6
    )
    assert re.search(
        r"\d+ of \d+ images were dropped as near-duplicates.*threshold=-0.999999 may be too low", caplog.text
    )


def test_an_input_without_images_gives_an_empty_output(corpus: Path, tmp_path: Path):
    empty = write_stage([[], [{"id": "url"}]], tmp_path / "3-filter")
    counts = run(empty, tmp_path / "4-deduplicate", corpus)
    assert (counts["before"], counts["images"], counts["unreadable"]) == (1, 0, 1)
    assert checked_against(tmp_path / "4-deduplicate") == []


def test_an_untrained_encoder_and_a_missing_evaluation_set_are_refused(corpus: Path, tmp_path: Path):
    def untrained() -> ThumbnailEncoder:
        encoder = ThumbnailEncoder()
        encoder.provenance = type(encoder.provenance)("csd", "random", trained_head=False)
        return encoder

    some = write_stage([rows_of(corpus)], tmp_path / "some")
    with pytest.raises(StylesimError, match="never been trained"):
        deduplicate(Stage(tmp_path / "other", {}, some, processes=1, show=False), encoder=untrained)
    with pytest.raises(StylesimError, match="no folder"):
        run(some, tmp_path / "third", tmp_path)
