"""Measures how well and how fast tags are found in captions.

`python benchmarks/captions.py` measures precision and recall, over all tags and for each kind, on the captions of
data/captions, which are labelled by hand. From these it generates captions to measure the speed: `dense`, each made of
two of them and with far more names than captions from the web, and `sparse`, in which one caption in eight contains a
tag, as in LAION-Aesthetics. Rates are captions per second of CPU time of one core, and the best of the rounds, since
other load can only make them slower:

- exact, reference: the two settings of `python -m stylesim.curate`
- words:   a trie of words, walked in Python from each word that begins a name; it finds the same tags as exact
- stage:   the whole stage in wall-clock time, parquet read and written, in one process and in one per core (`dense`),
           with the peak memory of the single process, for a quarter of the captions and for all of them
"""

from __future__ import annotations

import argparse
import csv
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from record import REPOSITORY, cores, write_table

from stylesim.core.stages.stage_parts import Part
from stylesim.curation.stage import Stage
from stylesim.curation.tags.caption_words import words_of
from stylesim.curation.tags.match_tags import MatcherSettings, load_matcher, match_tags
from stylesim.curation.tags.name_lists import KINDS
from stylesim.curation.tags.vocabulary import build_vocabulary

Find = Callable[[Sequence[str]], list[list[str]]]

PART = 50_000
COLUMNS = ("method", "processes", "captions", "dense_per_s", "sparse_per_s", "stage_per_s", "peak_mib")


def labelled_captions() -> list[tuple[str, set[str]]]:
    with (REPOSITORY / "data/captions/captions.csv").open(encoding="utf-8", newline="") as file:
        return [(row["caption"], {t for t in row["tags"].split("; ") if t}) for row in csv.DictReader(file)]


def quality(find: Find) -> dict[str, float]:
    """Return precision and recall over all tags of the labelled captions, and over the tags of each kind."""
    rows = labelled_captions()
    found_tags = find([caption for caption, _ in rows])
    metrics = {}
    for kind in ("", *KINDS):
        counts: Counter[str] = Counter()
        for (_, labels), tags in zip(rows, found_tags, strict=True):
            expected, found = ({tag for tag in group if tag.startswith(kind)} for group in (labels, tags))
            counts.update(hits=len(expected & found), expected=len(expected), found=len(found))
        prefix = f"{kind}_" if kind else ""
        metrics[f"{prefix}precision"] = round(counts["hits"] / counts["found"], 3)
        metrics[f"{prefix}recall"] = round(counts["hits"] / counts["expected"], 3)
    return metrics


def generate_captions(count: int, dense: bool = True) -> list[str]:
    """Return captions of about 73 letters."""
    rng, rows = random.Random(0), labelled_captions()
    captions = [caption for caption, _ in rows]
    plain = [caption for caption, tags in rows if not tags]
    first = [captions if dense or rng.random() < 1 / 8 else plain for _ in range(count)]
    return [f"{rng.choice(choices)} | {rng.choice(captions if dense else plain)}" for choices in first]


class WordTrie:
    """Finds the spellings of the exact matcher with a trie of words."""

    def __init__(self) -> None:
        self.root: dict[str, Any] = {}
        for spelling, (tag, before, behind) in build_vocabulary(
            MatcherSettings().lists(), MatcherSettings().surnames
        ).spellings.items():
            node = self.root
            for word in spelling.split():
                node = node.setdefault(word, {})
            node[""] = before, behind, tag

    def find_all(self, captions: Sequence[str]) -> list[list[str]]:
        return [self.find(words_of([caption])) for caption in captions]

    def find(self, text: list[str]) -> list[str]:
        matches, tags, reached = [], [], 0
        for start, word in enumerate(text):
            node, end = self.root.get(word), start
            while node:
                end += 1
                if "" in node:
                    before, behind, tag = node[""]
                    matches.append((start + before, behind - end, tag))
                node = node.get(text[end]) if end < len(text) else None
        for _, end, tag in sorted(matches):
            if end < reached:
                reached = end
                tags.append(tag)
        return [tag for tag in dict.fromkeys(tags) if tag]


def rate(find: Find, captions: Sequence[str], rounds: int) -> int:
    """Return captions per second of CPU time, the best of the rounds."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        find(captions)
        best = min(best, time.process_time() - began)
    return round(len(captions) / best)


def captions_part(number: int) -> Part:
    return Part(
        pa.table({"id": [f"{number}/{n}" for n in range(PART)], "caption": generate_captions(PART)}), {"images": PART}
    )


def run_stage(folder: Path, processes: int) -> None:
    """Print captions per second of wall-clock time and the peak memory; called in a separate process."""
    stage = Stage(folder / f"2-tags-{processes}", {}, folder / "1-sources", processes, show=False)
    began = time.perf_counter()
    images = match_tags(stage)["images"]
    seconds = time.perf_counter() - began
    print(images / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def stages(count: int) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for number in (max(1, count // PART // 4), count // PART):
            folder = Path(name) / str(number)
            source = Stage(folder / "1-sources", {}, processes=1, show=False)
            source.begin()
            source.finish(source.map_inputs(captions_part, range(number)))
            for processes in (1, cores()):
                command = [sys.executable, __file__, "--stage", str(folder), str(processes)]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                row = {"method": "stage", "processes": processes, "captions": number * PART}
                peak = round(float(out[-1])) if processes == 1 else ""  # that of the workers is not known
                rows.append(row | {"stage_per_s": round(float(out[-2])), "peak_mib": peak})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=800_000, help="captions for the stage (default: 800000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        return run_stage(Path(args.stage[0]), int(args.stage[1]))
    exact, reference, trie = (
        load_matcher(MatcherSettings()).find_all,
        load_matcher(MatcherSettings(matching="reference")).find_all,
        WordTrie(),
    )
    dense, sparse = generate_captions(PART), generate_captions(PART, dense=False)
    if exact(dense) != trie.find_all(dense):
        raise SystemExit("The trie of words finds other tags than the exact matcher, so the comparison is not fair.")
    rows: list[dict[str, Any]] = []
    for method, find in {"exact": exact, "reference": reference, "words": trie.find_all}.items():
        rates = {name: rate(find, texts, args.rounds) for name, texts in (("dense", dense), ("sparse", sparse))}
        row = {"method": method, "processes": 1, "captions": PART, **{f"{name}_per_s": n for name, n in rates.items()}}
        rows.append(row | quality(find))
    columns = [*COLUMNS, *quality(exact)]
    rows += stages(args.captions)
    tags = len(build_vocabulary(MatcherSettings().lists(), MatcherSettings().surnames).tags)
    letters = round(sum(map(len, dense)) / PART, 1)
    settings = {"tags": tags, "letters": letters, "rounds": args.rounds}
    table = [{column: row.get(column, "") for column in columns} for row in rows]
    write_table("captions", table, settings, ("pyarrow", "pyahocorasick", "clip-interrogator"))


if __name__ == "__main__":
    main()
