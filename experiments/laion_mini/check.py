"""What each stage of the curation has found of what was planted, and what it has found besides.

`python experiments/laion_mini/check.py --corpus outputs/laion_mini/2/corpus --work outputs/laion_mini/2/work` reads the
truth of the corpus and the folders that `stylesim.curate` has left, and writes `check.csv`, `check.md` and
`not_planted.png` into the work folder. It counts by itself: of the package it uses only the readers of a stage.

A row of the table is a question with a right answer: `planted` of them there were (of what had come as far as this
stage), `found` is what the stage said, `right` is how many of those were planted.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from captions import OVERDONE
from PIL import Image, ImageDraw

from stylesim.curation.image_locator import read_image_bytes
from stylesim.curation.stage import SUMMARY, read_stage

KINDS = ("copy", "crop", "flip", "recompressed", "resized")
DUPLICATE = r"^(?:near-duplicate of|the pixels of) (.*)$"
"""How the stage says for whom an image went."""
CELL, COLUMNS, SHOWN = 96, 8, 48


class Figure(NamedTuple):
    stage: str
    what: str
    planted: int
    found: int | None
    right: int

    @property
    def precision(self) -> float | None:
        return self.right / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        return self.right / self.planted if self.planted else None


def figure(stage: str, what: str, planted: Iterable, found: Iterable) -> Figure:
    planted, found = set(planted), set(found)
    return Figure(stage, what, len(planted), len(found), len(planted & found))


def recalled(stage: str, what: str, planted: Iterable, found: Iterable) -> Figure:
    """Asks only how many of these were found: what else was is the business of another row."""
    return figure(stage, what, planted, found)._replace(found=None)


def dropped(folder: Path) -> pd.Series:
    """Reason by id, without what stands behind its colon."""
    tables = [pq.read_table(path).to_pandas() for path in sorted(folder.glob("dropped-*.parquet"))]
    rows = pd.concat(tables) if tables else pd.DataFrame({"id": [], "reason": []})
    return rows.set_index("id")["reason"].str.partition(":")[0]


def of_sources(truth: pd.DataFrame, work: Path) -> list[Figure]:
    kept = read_stage(work / "1-sources", ["id"])["id"].to_pylist()
    dead = truth.index[truth.kind == "dead"]
    return [figure("sources", "links that are dead", dead, set(truth.index) - set(kept))]


def of_tags(truth: pd.DataFrame, work: Path) -> list[Figure]:
    rows = read_stage(work / "2-tags", ["id", "tags"]).to_pandas().set_index("id")["tags"]
    true = truth.loc[rows.index]
    every = {(name, tag) for name, tags in true.tags.items() for tag in tags}
    told = {(name, tag) for name, tags in rows.items() for tag in tags}
    figures = [figure("tags", "all tags", every, told)]
    for group in ("artist", "medium", "movement"):
        figures.append(figure("tags", f"{group}s", *(_of(group, pairs) for pairs in (every, told))))
    for naming in ("full", "alias", "misspelt"):
        named = set(true.index[true.naming == naming])
        pairs = ({(n, t) for n, t in _of("artist", some) if n in named} for some in (every, told))
        figures.append(figure("tags", f"artists whose name is {naming}", *pairs))
    decoys, false = set(true.index[true.decoy != ""]), {name for name, _ in told - every}
    return [*figures, recalled("tags", "common words that were left alone", decoys, decoys - false)]


def _of(group: str, pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(name, tag) for name, tag in pairs if tag.startswith(f"{group}:")}


def of_filter(truth: pd.DataFrame, work: Path) -> list[Figure]:
    """By the truth about the captions: what the matcher has missed before counts against the filter as well."""
    folder = work / "3-filter"
    summary = json.loads((folder / SUMMARY).read_text())
    settings, reasons = summary["settings"], dropped(folder)
    true = truth.loc[read_stage(work / "2-tags", ["id"])["id"].to_pylist()]
    passing = true[~true.kind.isin(["tiny", "unloved"])]
    counts = Counter(tag for tags in passing.tags for tag in tags)
    rare = {tag for tag, n in counts.items() if n < settings["min_tag_images"]}
    empty = passing.index[[set(tags) <= rare | {OVERDONE} for tags in passing.tags]]
    table = pd.read_csv(folder / "tags.csv").set_index("tag")["images"]
    return [
        figure("filter", "too small", true.index[true.kind == "tiny"], reasons.index[reasons == "small"]),
        figure("filter", "low score", true.index[true.kind == "unloved"], reasons.index[reasons == "low_aesthetic"]),
        figure("filter", "over-represented tags", {OVERDONE}, summary["over_represented"]),
        figure("filter", "rare tags", rare, table.index[table < settings["min_tag_images"]]),
        figure(
            "filter", "without a tag to keep", empty, reasons.index[reasons.isin(["untagged", "only_dropped_tags"])]
        ),
    ]


class StageImages(NamedTuple):
    """What came to the stage of duplicates and could be read."""

    truth: pd.DataFrame
    """With `keeper` beside it: the id of the picture that stayed in each one's place, null where none did."""
    reasons: pd.Series


def read_pictures(truth: pd.DataFrame, work: Path) -> StageImages:
    folder = work / "4-deduplicate"
    came = read_stage(work / "3-filter", ["id", "image"]).to_pandas().set_index("id")
    tables = [pq.read_table(path).to_pandas() for path in sorted(folder.glob("dropped-*.parquet"))]
    told = pd.concat(tables).set_index("id")["reason"]
    kept = set(read_stage(folder, ["id"])["id"].to_pylist())
    place = told.str.extract(DUPLICATE)[0]
    keeper = [name if name in kept else place.get(name) for name in came.index]
    rows = truth.loc[came.index].assign(image=came["image"], keeper=keeper)
    reasons = dropped(folder)
    return StageImages(rows[~rows.index.isin(reasons.index[reasons == "unreadable"])], reasons)


def of_duplicates(pictures: StageImages) -> list[Figure]:
    """Planted copies that have the keeper of their original; whether what was dropped shows what its keeper does;
    and pictures of which an image is left."""
    rows = pictures.truth.dropna(subset="keeper")
    keepers = rows[rows.kind == "original"].set_index("picture")["keeper"]
    figures = []
    for kind in KINDS:
        planted = rows[(rows.kind == kind) & rows.picture.isin(keepers.index)]
        joined = planted.keeper.to_numpy() == keepers[planted.picture].to_numpy()
        figures.append(recalled("deduplicate", kind, planted.index, planted.index[joined]))
    gone = rows[rows.index != rows.keeper]
    right = gone.picture.to_numpy() == rows.picture[gone.keeper].to_numpy()
    spare = len(rows) - rows.picture.nunique()
    figures.append(Figure("deduplicate", "images dropped for another", spare, len(gone), int(right.sum())))
    left = rows.picture[rows.index == rows.keeper]
    return [*figures, recalled("deduplicate", "pictures that are left", rows.picture, left)]


def of_contamination(pictures: StageImages) -> list[Figure]:
    true, reasons = pictures.truth, pictures.reasons
    found = reasons.index[reasons == "contaminated"]
    planted = {kind: set(true.index[true.kind == kind]) for kind in ("test", "recompressed test")}
    each = [recalled("decontaminate", f"{kind} images", ids, found) for kind, ids in planted.items()]
    return [*each, figure("decontaminate", "images dropped", set().union(*planted.values()), found)]


def of_shards(work: Path) -> list[Figure]:
    """What the shards hold, read with nothing but tarfile, against what the stage before has kept."""
    kept = read_stage(work / "4-deduplicate", ["id", "tags"]).to_pylist()
    packed = []
    for path in sorted((work / "5-shards").glob("*/*.tar")):
        with tarfile.open(path) as tar:
            packed += [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
    planted = {(row["id"], tag) for row in kept for tag in row["tags"]}
    return [
        figure("shard", "tags of images that were kept", planted, {(p["name"], t) for p in packed for t in p["tags"]})
    ]


class Strangers(NamedTuple):
    """Two originals above the threshold that nobody planted."""

    left: pd.Series
    right: pd.Series
    similarity: float


def not_planted(pictures: StageImages, work: Path) -> list[Strangers]:
    """Every such pair, the most similar first, by all inner products at once."""
    folder = work / "4-deduplicate"
    settings = json.loads((folder / SUMMARY).read_text())["settings"]
    ids, vectors = descriptors(folder / "descriptors")
    vectors = reading(vectors, settings.get("whiten"))(vectors)
    chosen = [row for row, name in enumerate(ids) if pictures.truth.kind.get(name) == "original"]
    true, similar = pictures.truth.loc[[ids[row] for row in chosen]], np.triu(vectors[chosen] @ vectors[chosen].T, 1)
    pairs = sorted(zip(*np.nonzero(similar > settings["threshold"]), strict=True), key=lambda pair: -similar[pair])
    return [Strangers(true.iloc[a], true.iloc[b], float(similar[a, b])) for a, b in pairs]


def descriptors(folder: Path) -> tuple[list[str], np.ndarray]:
    """(ids, descriptors) of a descriptor set, in float64."""
    ids = pq.read_table(folder / "items.parquet")["id"].to_pylist()
    return ids, np.load(folder / "descriptors.npy").astype(np.float64)


def reading(corpus: np.ndarray, axes: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """How descriptors are compared: as they are, or whitened along the first axes of the corpus."""
    if axes is None:
        return lambda vectors: vectors
    mean = corpus.mean(axis=0)
    _, deviations, directions = np.linalg.svd(corpus - mean, full_matrices=False)

    def along(vectors: np.ndarray) -> np.ndarray:
        places = (vectors - mean) @ directions[:axes].T / deviations[:axes]
        return places / np.linalg.norm(places, axis=1, keepdims=True)

    return along


def draw(pairs: list[Strangers], file: Path) -> None:
    """A sheet of pairs, evenly from the surest to the least sure."""
    shown = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(len(pairs), SHOWN)).round().astype(int)]
    wide, high = 2 * CELL + 8, CELL + 16
    sheet = Image.new("RGB", (COLUMNS * wide, max(1, -(-len(shown) // COLUMNS)) * high), "white")
    pen = ImageDraw.Draw(sheet)
    for place, pair in enumerate(shown):
        x, y = place % COLUMNS * wide, place // COLUMNS * high
        for side, row in enumerate((pair.left, pair.right)):
            image = Image.open(io.BytesIO(read_image_bytes(row["image"]))).convert("RGB")
            sheet.paste(image.resize((CELL, CELL)), (x + side * CELL, y))
        pen.text((x, y + CELL), f"{pair.similarity:.3f} {pair.left['style']}, {pair.right['style']}", "black")
    sheet.save(file)


def in_words(pairs: list[Strangers]) -> str:
    counts = Counter(
        (pair.left["style"] == pair.right["style"], pair.left["content"] == pair.right["content"]) for pair in pairs
    )
    sets, contents = {True: "one set", False: "two sets"}, {True: "one content", False: "two contents"}
    return ", ".join(f"{n} of {sets[a]} and {contents[b]}" for (a, b), n in counts.most_common()) or "none"


def write(figures: list[Figure], strangers: str, folder: Path) -> str:
    """`check.csv` and `check.md`; returns the latter."""
    lines = ["| stage | what | planted | found | right | precision | recall |", "|---|---|--:|--:|--:|--:|--:|"]
    with (folder / "check.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*Figure._fields, "precision", "recall"])
        for one in figures:
            shares = ["" if share is None else f"{share:.3f}" for share in (one.precision, one.recall)]
            row = ["" if value is None else str(value) for value in one] + shares
            table.writerow(row)
            lines.append(f"| {' | '.join(row)} |")
    lines.append(f"\nPairs of pictures above the threshold that nobody planted: {strangers}; see not_planted.png.")
    text = "\n".join(lines) + "\n"
    (folder / "check.md").write_text(text)
    return text


def check(corpus: Path, work: Path) -> list[Figure]:
    """All figures, and the files about them."""
    truth = pq.read_table(corpus / "truth.parquet").to_pandas().set_index("id")
    pictures = read_pictures(truth, work)
    figures = [*of_sources(truth, work), *of_tags(truth, work), *of_filter(truth, work)]
    figures += [*of_duplicates(pictures), *of_contamination(pictures), *of_shards(work)]
    pairs = not_planted(pictures, work)
    draw(pairs, work / "not_planted.png")
    print(write(figures, in_words(pairs), work))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("outputs/laion_mini/2/corpus"), help="of make_corpus.py")
    parser.add_argument("--work", type=Path, default=Path("outputs/laion_mini/2/work"), help="of stylesim.curate")
    given = parser.parse_args()
    check(given.corpus, given.work)


if __name__ == "__main__":
    main()
