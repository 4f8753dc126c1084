"""Compare what each stage of the curation has found with what was planted.

`python experiments/laion_mini/check.py --corpus outputs/laion_mini/2/corpus --work outputs/laion_mini/2/work` reads the
truth of the corpus and the folders that `stylesim.curate` has written, and writes `check.csv`, `check.md` and
`not_planted.png` into the work folder. It has its own counting: of the package, it uses only the readers of a stage.

Each row of the table is a question with a known answer: `planted` is the number of planted cases (among the images that
reached this stage), `found` how many the stage reported, and `right` how many of the reported ones were planted.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from captions import OVERDONE
from PIL import Image, ImageDraw

from stylesim.core.stages.stage import SUMMARY
from stylesim.curation.image_locator import read_image_bytes
from stylesim.curation.stage import read_stage

KINDS = ("copy", "crop", "flip", "recompressed", "resized")
DUPLICATE = r"^(?:near-duplicate of|the pixels of) (.*)$"
"""The reason of an image that was dropped for another one, whose id it ends with."""
CELL, COLUMNS, SHOWN = 96, 8, 48


class Finding(NamedTuple):
    """One row of the table."""

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


def compare(stage: str, what: str, planted: Iterable, found: Iterable) -> Finding:
    """Compare two sets."""
    planted, found = set(planted), set(found)
    return Finding(stage, what, len(planted), len(found), len(planted & found))


def compare_recall(stage: str, what: str, planted: Iterable, found: Iterable) -> Finding:
    """Ask only how many planted cases were found; false reports are counted in another row."""
    return compare(stage, what, planted, found)._replace(found=None)


def dropped_reasons(folder: Path) -> pd.Series:
    """Return the reason of each dropped id, up to its colon."""
    tables = [pq.read_table(path).to_pandas() for path in sorted(folder.glob("dropped-*.parquet"))]
    rows = pd.concat(tables) if tables else pd.DataFrame({"id": [], "reason": []})
    return rows.set_index("id")["reason"].str.partition(":")[0]


def check_sources(truth: pd.DataFrame, work: Path) -> list[Finding]:
    """Check the dead links."""
    kept = read_stage(work / "1-sources", ["id"])["id"].to_pylist()
    dead = truth.index[truth.kind == "dead"]
    return [compare("sources", "links that are dead", dead, set(truth.index) - set(kept))]


def check_tags(truth: pd.DataFrame, work: Path) -> list[Finding]:
    """Check the tags by kind, and the artists by how they are written."""
    rows = read_stage(work / "2-tags", ["id", "tags"]).to_pandas().set_index("id")["tags"]
    true = truth.loc[rows.index]
    planted = {(name, tag) for name, tags in true.tags.items() for tag in tags}
    found = {(name, tag) for name, tags in rows.items() for tag in tags}
    findings = [compare("tags", "all tags", planted, found)]
    for kind in ("artist", "medium", "movement"):
        findings.append(compare("tags", f"{kind}s", *(_of_kind(kind, pairs) for pairs in (planted, found))))
    for naming in ("full", "alias", "misspelt"):
        named = set(true.index[true.naming == naming])
        pairs = ({(n, t) for n, t in _of_kind("artist", some) if n in named} for some in (planted, found))
        findings.append(compare("tags", f"artists whose name is {naming}", *pairs))
    decoys, false = set(true.index[true.decoy != ""]), {name for name, _ in found - planted}
    return [*findings, compare_recall("tags", "common words that were left alone", decoys, decoys - false)]


def _of_kind(kind: str, pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    return {(name, tag) for name, tag in pairs if tag.startswith(f"{kind}:")}


def check_filter(truth: pd.DataFrame, work: Path) -> list[Finding]:
    """Check the filter against the true tags: what the matcher has missed counts against the filter as well."""
    folder = work / "3-filter"
    summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    settings, reasons = summary["settings"], dropped_reasons(folder)
    true = truth.loc[read_stage(work / "2-tags", ["id"])["id"].to_pylist()]
    passing = true[~true.kind.isin(["tiny", "unloved"])]
    counts = Counter(tag for tags in passing.tags for tag in tags)
    rare = {tag for tag, n in counts.items() if n < settings["min_tag_images"]}
    untagged = passing.index[[set(tags) <= rare | {OVERDONE} for tags in passing.tags]]
    dropped_untagged = reasons.index[reasons.isin(["untagged", "only_dropped_tags"])]
    table = pd.read_csv(folder / "tags.csv").set_index("tag")["images"]
    return [
        compare("filter", "too small", true.index[true.kind == "tiny"], reasons.index[reasons == "small"]),
        compare("filter", "low score", true.index[true.kind == "unloved"], reasons.index[reasons == "low_aesthetic"]),
        compare("filter", "over-represented tags", {OVERDONE}, summary["over_represented"]),
        compare("filter", "rare tags", rare, table.index[table < settings["min_tag_images"]]),
        compare("filter", "without a tag to keep", untagged, dropped_untagged),
    ]


class DeduplicatedImages(NamedTuple):
    """The readable images that have reached stage 4."""

    truth: pd.DataFrame
    """With a column `keeper`: the id of the image that was kept in place of each one, null if none was."""
    reasons: pd.Series


def read_deduplicated(truth: pd.DataFrame, work: Path) -> DeduplicatedImages:
    """Read the result of stage 4 next to the truth."""
    folder = work / "4-deduplicate"
    came = read_stage(work / "3-filter", ["id", "image"]).to_pandas().set_index("id")
    tables = [pq.read_table(path).to_pandas() for path in sorted(folder.glob("dropped-*.parquet"))]
    full_reasons = pd.concat(tables).set_index("id")["reason"]
    kept = set(read_stage(folder, ["id"])["id"].to_pylist())
    replacement = full_reasons.str.extract(DUPLICATE)[0]
    keeper = [name if name in kept else replacement.get(name) for name in came.index]
    rows = truth.loc[came.index].assign(image=came["image"], keeper=keeper)
    reasons = dropped_reasons(folder)
    return DeduplicatedImages(rows[~rows.index.isin(reasons.index[reasons == "unreadable"])], reasons)


def check_duplicates(images: DeduplicatedImages) -> list[Finding]:
    """Check the groups of near-duplicates.

    The questions are: which planted copies have the same keeper as their original, whether a dropped image shows the
    same drawing as its keeper, and of how many drawings an image is left.
    """
    rows = images.truth.dropna(subset="keeper")
    keepers = rows[rows.kind == "original"].set_index("picture")["keeper"]
    findings = []
    for kind in KINDS:
        planted = rows[(rows.kind == kind) & rows.picture.isin(keepers.index)]
        grouped = planted.keeper.to_numpy() == keepers[planted.picture].to_numpy()
        findings.append(compare_recall("deduplicate", kind, planted.index, planted.index[grouped]))
    gone = rows[rows.index != rows.keeper]
    right = gone.picture.to_numpy() == rows.picture[gone.keeper].to_numpy()
    superfluous = len(rows) - rows.picture.nunique()
    findings.append(Finding("deduplicate", "images dropped for another", superfluous, len(gone), int(right.sum())))
    left = rows.picture[rows.index == rows.keeper]
    return [*findings, compare_recall("deduplicate", "drawings that are left", rows.picture, left)]


def check_contamination(images: DeduplicatedImages) -> list[Finding]:
    """Check which images of the evaluation sets were dropped."""
    true, reasons = images.truth, images.reasons
    found = reasons.index[reasons == "contaminated"]
    planted = {kind: set(true.index[true.kind == kind]) for kind in ("test", "recompressed test")}
    per_kind = [compare_recall("decontaminate", f"{kind} images", ids, found) for kind, ids in planted.items()]
    return [*per_kind, compare("decontaminate", "images dropped", set().union(*planted.values()), found)]


def check_shards(work: Path) -> list[Finding]:
    """Compare what the shards contain, read with tarfile alone, with what the previous stage has kept."""
    kept = read_stage(work / "4-deduplicate", ["id", "tags"]).to_pylist()
    packed = []
    for path in sorted((work / "5-shards").glob("*/*.tar")):
        with tarfile.open(path) as tar:
            packed += [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
    planted = {(row["id"], tag) for row in kept for tag in row["tags"]}
    found = {(labels["name"], tag) for labels in packed for tag in labels["tags"]}
    return [compare("shard", "tags of images that were kept", planted, found)]


class UnplantedPair(NamedTuple):
    """Two originals above the threshold that were not planted."""

    left: pd.Series
    right: pd.Series
    similarity: float


def unplanted_pairs(images: DeduplicatedImages, work: Path) -> list[UnplantedPair]:
    """Return all such pairs, the most similar first, from the matrix of all inner products."""
    folder = work / "4-deduplicate"
    settings = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["settings"]
    ids, vectors = read_descriptors(folder / "descriptors")
    vectors = whitening(vectors, settings.get("whiten"))(vectors)
    chosen = [row for row, name in enumerate(ids) if images.truth.kind.get(name) == "original"]
    true, similar = images.truth.loc[[ids[row] for row in chosen]], np.triu(vectors[chosen] @ vectors[chosen].T, 1)
    pairs = sorted(zip(*np.nonzero(similar > settings["threshold"]), strict=True), key=lambda pair: -similar[pair])
    return [UnplantedPair(true.iloc[a], true.iloc[b], float(similar[a, b])) for a, b in pairs]


def read_descriptors(folder: Path) -> tuple[list[str], np.ndarray]:
    """Return (ids, descriptors) of a descriptor set, in float64."""
    ids = pq.read_table(folder / "items.parquet")["id"].to_pylist()
    return ids, np.load(folder / "descriptors.npy").astype(np.float64)


def whitening(corpus: np.ndarray, axes: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that whitens descriptors along the first axes of the corpus; None changes nothing."""
    if axes is None:
        return lambda vectors: vectors
    mean = corpus.mean(axis=0)
    _, deviations, directions = np.linalg.svd(corpus - mean, full_matrices=False)

    def whiten(vectors: np.ndarray) -> np.ndarray:
        whitened = (vectors - mean) @ directions[:axes].T / deviations[:axes]
        return whitened / np.linalg.norm(whitened, axis=1, keepdims=True)

    return whiten


def draw_pairs(pairs: Sequence[UnplantedPair], file: Path) -> None:
    """Draw a sheet of pairs, evenly spaced from the most to the least similar."""
    shown = [pairs[i] for i in np.linspace(0, len(pairs) - 1, min(len(pairs), SHOWN)).round().astype(int)]
    width, height = 2 * CELL + 8, CELL + 16
    sheet = Image.new("RGB", (COLUMNS * width, max(1, -(-len(shown) // COLUMNS)) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for number, pair in enumerate(shown):
        x, y = number % COLUMNS * width, number // COLUMNS * height
        for side, row in enumerate((pair.left, pair.right)):
            image = Image.open(io.BytesIO(read_image_bytes(row["image"]))).convert("RGB")
            sheet.paste(image.resize((CELL, CELL)), (x + side * CELL, y))
        pen.text((x, y + CELL), f"{pair.similarity:.3f} {pair.left['style']}, {pair.right['style']}", "black")
    sheet.save(file)


def summarise_pairs(pairs: Sequence[UnplantedPair]) -> str:
    """Return how many pairs are of the same set and of the same content."""
    counts = Counter(
        (pair.left["style"] == pair.right["style"], pair.left["content"] == pair.right["content"]) for pair in pairs
    )
    sets, contents = {True: "one set", False: "two sets"}, {True: "one content", False: "two contents"}
    return ", ".join(f"{n} of {sets[a]} and {contents[b]}" for (a, b), n in counts.most_common()) or "none"


def write_findings(findings: Sequence[Finding], pairs: str, folder: Path) -> str:
    """Write `check.csv` and `check.md`; return the text of the latter."""
    lines = ["| stage | what | planted | found | right | precision | recall |", "|---|---|--:|--:|--:|--:|--:|"]
    with (folder / "check.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*Finding._fields, "precision", "recall"])
        for finding in findings:
            shares = ["" if share is None else f"{share:.3f}" for share in (finding.precision, finding.recall)]
            row = ["" if value is None else str(value) for value in finding] + shares
            table.writerow(row)
            lines.append(f"| {' | '.join(row)} |")
    lines.append(f"\nPairs of originals above the threshold that nobody planted: {pairs}; see not_planted.png.")
    text = "\n".join(lines) + "\n"
    (folder / "check.md").write_text(text)
    return text


def check(corpus: Path, work: Path) -> list[Finding]:
    """Return all findings, and write the files about them."""
    truth = pq.read_table(corpus / "truth.parquet").to_pandas().set_index("id")
    images = read_deduplicated(truth, work)
    findings = [*check_sources(truth, work), *check_tags(truth, work), *check_filter(truth, work)]
    findings += [*check_duplicates(images), *check_contamination(images), *check_shards(work)]
    pairs = unplanted_pairs(images, work)
    draw_pairs(pairs, work / "not_planted.png")
    print(write_findings(findings, summarise_pairs(pairs), work))
    return findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, default=Path("outputs/laion_mini/2/corpus"), help="of make_corpus.py")
    parser.add_argument("--work", type=Path, default=Path("outputs/laion_mini/2/work"), help="of stylesim.curate")
    args = parser.parse_args()
    check(args.corpus, args.work)


if __name__ == "__main__":
    main()
