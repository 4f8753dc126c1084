"""StyleCross: its shards keep what its card says."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from webdataset.compat import WebDataset

ROOT = Path(__file__).parents[2] / "data" / "stylecross"
SPLITS = ("train", "validation", "unseen_contents", "unseen_styles")
CANVAS, BOX = 96, 88


class Sample(NamedTuple):
    key: str
    image: bytes
    tags: dict[str, str]
    labels: dict


def read(split: str) -> list[Sample]:
    samples = []
    for path in sorted((ROOT / split).glob("*.tar.gz")):
        with tarfile.open(path) as tar:
            files = [(member.name, tar.extractfile(member).read()) for member in tar]  # pyright: ignore[reportOptionalMemberAccess]
        for (image_name, image), (label_name, raw) in zip(files[::2], files[1::2], strict=True):
            key, extension = image_name.rsplit(".", 1)
            assert (extension, label_name) == ("webp", f"{key}.json")
            labels = json.loads(raw)
            samples.append(Sample(key, image, dict(tag.split(":", 1) for tag in labels["tags"]), labels))
    return samples


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Sample]]:
    return {split: read(split) for split in SPLITS}


def of(samples: list[Sample], group: str) -> set[str]:
    return {sample.tags[group] for sample in samples}


def contents(samples: list[Sample]) -> set[str]:
    return {sample.labels["content"] for sample in samples}


def test_card_states_the_digest_of_the_shards() -> None:
    lines = [
        f"{split}/{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n"
        for split in SPLITS
        for path in sorted((ROOT / split).glob("*.tar.gz"))
    ]
    assert hashlib.sha256("".join(lines).encode()).hexdigest() in (ROOT / "README.md").read_text()


def test_the_folder_is_smaller_than_25_megabytes() -> None:
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) < 25e6


def test_index_agrees_with_the_shards(splits: dict[str, list[Sample]]) -> None:
    for split, samples in splits.items():
        index = json.loads((ROOT / split / "index.json").read_text())
        assert index["count"] == sum(shard["count"] for shard in index["shards"]) == len(samples)
        assert index["tags"] == Counter(tag for sample in samples for tag in sample.labels["tags"])
        for shard in index["shards"]:
            data = (ROOT / split / shard["name"]).read_bytes()
            assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_shards_of_a_split_have_nearly_one_size() -> None:
    for split in SPLITS:
        counts = [shard["count"] for shard in json.loads((ROOT / split / "index.json").read_text())["shards"]]
        assert max(counts) - min(counts) <= len(counts)


def test_each_content_is_in_one_part_only(splits: dict[str, list[Sample]]) -> None:
    train, validation = contents(splits["train"]), contents(splits["validation"])
    tests = contents(splits["unseen_contents"]) | contents(splits["unseen_styles"])
    assert not train & validation
    assert not train & tests
    assert not validation & tests


def test_held_out_families_are_not_trained_on(splits: dict[str, list[Sample]]) -> None:
    seen, unseen = of(splits["train"], "family"), of(splits["unseen_styles"], "family")
    assert not seen & unseen
    for split in ("validation", "unseen_contents"):
        assert of(splits[split], "set") == of(splits["train"], "set")
    assert len(of(splits["unseen_styles"], "manner")) >= 4


def test_there_are_enough_styles_queries_and_training_images(splits: dict[str, list[Sample]]) -> None:
    assert len(of(splits["train"], "set") | of(splits["unseen_styles"], "set")) >= 9
    assert len(splits["unseen_contents"]) >= 1000
    assert len(splits["unseen_styles"]) >= 400
    trained = Counter(sample.tags["set"] for sample in splits["train"])
    assert min(trained.values()) >= 140
    assert max(trained.values()) <= 5 * min(trained.values())


def test_every_query_has_a_relevant_image(splits: dict[str, list[Sample]]) -> None:
    """Every query has another content of its style; many have the same content in another style."""
    gallery = [*splits["unseen_contents"], *splits["unseen_styles"]]
    by_style = Counter(sample.tags["set"] for sample in gallery)
    by_content = Counter(sample.labels["content"] for sample in gallery)
    assert min(by_style.values()) >= 20
    assert sum(by_content[sample.labels["content"]] > 1 for sample in gallery) >= len(gallery) / 2


def test_labels_are_complete_and_keys_are_unique(splits: dict[str, list[Sample]]) -> None:
    samples = [sample for members in splits.values() for sample in members]
    assert len({sample.key for sample in samples}) == len(samples)
    for sample in samples:
        assert list(sample.tags) == ["set", "family", "manner"]
        assert sample.key == f"{sample.tags['set']}_{sample.labels['content']}"
        assert re.fullmatch(r"[\w-]+", sample.key)
        assert sample.labels["licence"]
        assert sample.labels["author"]


def test_each_style_has_one_family_one_manner_and_a_credit(splits: dict[str, list[Sample]]) -> None:
    card = (ROOT / "README.md").read_text()
    credits = {
        (*sample.tags.values(), sample.labels["licence"], sample.labels["author"])
        for members in splits.values()
        for sample in members
    }
    assert len(credits) == len({style for style, *_ in credits})
    for style, family, manner, licence, author in credits:
        assert re.search(rf"\| `{style}` \| \**{family}\** \| {manner} \|", card)
        assert re.search(rf"\| `{style}` \| .* \| {re.escape(author)} \| \[?{licence}\b", card)
        assert licence.startswith(("CC-BY", "MIT", "ISC", "Apache"))
        assert "NC" not in licence


@pytest.mark.slow
def test_ink_fills_one_box_in_every_image(splits: dict[str, list[Sample]]) -> None:
    """Margins say nothing about the set: the ink has the longer side of the box and the centre of the canvas."""
    away = []
    for sample in (sample for members in splits.values() for sample in members[::3]):
        image = np.asarray(Image.open(io.BytesIO(sample.image)).convert("RGB"))
        assert image.shape == (CANVAS, CANVAS, 3)
        ink = (255 - image.min(axis=2)) > 16
        rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
        ends = np.array([[rows[0], rows[-1] + 1], [columns[0], columns[-1] + 1]])
        away.append((abs(np.ptp(ends, axis=1).max() - BOX), abs(ends.sum(axis=1) - CANVAS).max() / 2))
    assert np.max(away) <= 5, "pixels, by the artefacts of lossy compression beside hard edges"
    assert (np.array(away) <= 2).all(axis=1).mean() > 0.99


def test_plain_webdataset_reads_images_and_labels() -> None:
    shards = [str(path) for path in sorted((ROOT / "validation").glob("*.tar.gz"))]
    dataset = WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("webp", "json", "__key__")
    image, labels, key = next(iter(dataset))  # pyright: ignore
    assert image.size == (CANVAS, CANVAS)
    assert labels["tags"][0].removeprefix("set:") == key.split("_")[0]
