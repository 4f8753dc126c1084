"""How well and how fast names are found in captions.

`python benchmarks/captions.py` reads data/captions, labelled by hand, for the precision and recall of all tags and of
each kind, and makes captions of them for the speed: `dense`, two of those each, far more names than the web has, and
`sparse`, where one in eight names something, as of LAION-Aesthetics. Rates are captions per second of processor time of
one core, the best of the rounds, since other people's load only takes away:

- exact, reference: the two ways of `python -m stylesim.curate`
- words:   a tree of words, walked in Python from each word that begins a name: the same tags as exact
- stage:   the whole stage by the clock, parquet read and written, in one process and in one per core (`dense`), with
           the peak memory of the one process, for a quarter of the captions and for all of them
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

from stylesim.curation.stage import Part, Stage
from stylesim.curation.tags.caption_words import words_of
from stylesim.curation.tags.match_tags import MatcherSettings, load_matcher, match_tags
from stylesim.curation.tags.name_lists import KINDS
from stylesim.curation.tags.vocabulary import build_vocabulary

Find = Callable[[Sequence[str]], list[list[str]]]

PART = 50_000
COLUMNS = ("way", "processes", "captions", "dense_per_s", "sparse_per_s", "stage_per_s", "peak_mib")


def labelled() -> list[tuple[str, set[str]]]:
    with (REPOSITORY / "data/captions/captions.csv").open(encoding="utf-8", newline="") as file:
        return [(row["caption"], {t for t in row["tags"].split("; ") if t}) for row in csv.DictReader(file)]


def quality(find: Find) -> dict[str, float]:
    """Precision and recall over all tags of the labelled captions, and over those of each kind."""
    rows = labelled()
    found = find([caption for caption, _ in rows])
    metrics = {}
    for kind in ("", *KINDS):
        counts: Counter[str] = Counter()
        for (_, wanted), tags in zip(rows, found, strict=True):
            w, f = ({tag for tag in some if tag.startswith(kind)} for some in (wanted, tags))
            counts.update(hits=len(w & f), wanted=len(w), found=len(f))
        prefix = f"{kind}_" if kind else ""
        metrics[f"{prefix}precision"] = round(counts["hits"] / counts["found"], 3)
        metrics[f"{prefix}recall"] = round(counts["hits"] / counts["wanted"], 3)
    return metrics


def made(count: int, dense: bool = True) -> list[str]:
    """Captions of about 73 letters."""
    rng, rows = random.Random(0), labelled()
    captions = [caption for caption, _ in rows]
    plain = [caption for caption, tags in rows if not tags]
    first = [captions if dense or rng.random() < 1 / 8 else plain for _ in range(count)]
    return [f"{rng.choice(some)} | {rng.choice(captions if dense else plain)}" for some in first]


class Words:
    """The same spellings by a tree of words."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        for spelt, (tag, before, behind) in build_vocabulary(
            MatcherSettings().lists(), MatcherSettings().surnames
        ).spellings.items():
            node = self.tree
            for word in spelt.split():
                node = node.setdefault(word, {})
            node[""] = before, behind, tag

    def find_all(self, captions: Sequence[str]) -> list[list[str]]:
        return [self.find(words_of([caption])) for caption in captions]

    def find(self, text: list[str]) -> list[str]:
        found, tags, reached = [], [], 0
        for start, word in enumerate(text):
            node, end = self.tree.get(word), start
            while node:
                end += 1
                if "" in node:
                    before, behind, tag = node[""]
                    found.append((start + before, behind - end, tag))
                node = node.get(text[end]) if end < len(text) else None
        for _, end, tag in sorted(found):
            if end < reached:
                reached = end
                tags.append(tag)
        return [tag for tag in dict.fromkeys(tags) if tag]


def rate(find: Find, captions: Sequence[str], rounds: int) -> int:
    """Captions per second of processor time."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        find(captions)
        best = min(best, time.process_time() - began)
    return round(len(captions) / best)


def captions_part(number: int) -> Part:
    return Part(pa.table({"id": [f"{number}/{n}" for n in range(PART)], "caption": made(PART)}), {"images": PART})


def run_stage(folder: Path, processes: int) -> None:
    """In a process of its own: captions per second by the clock, and the peak memory of one process."""
    stage = Stage(folder / f"2-tags-{processes}", {}, folder / "1-sources", processes, show=False)
    began = time.perf_counter()
    images = match_tags(stage)["images"]
    took = time.perf_counter() - began
    print(images / took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


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
                row = {"way": "stage", "processes": processes, "captions": number * PART}
                peak = round(float(out[-1])) if processes == 1 else ""  # of the workers nobody is told
                rows.append(row | {"stage_per_s": round(float(out[-2])), "peak_mib": peak})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=800_000, help="captions of the stage (default: 800000)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage:
        return run_stage(Path(given.stage[0]), int(given.stage[1]))
    exact, reference, tree = (
        load_matcher(MatcherSettings()).find_all,
        load_matcher(MatcherSettings(matching="reference")).find_all,
        Words(),
    )
    dense, sparse = made(PART), made(PART, dense=False)
    if exact(dense) != tree.find_all(dense):
        raise SystemExit("the tree of words finds other tags: the comparison is not fair")
    rows: list[dict[str, Any]] = []
    for way, find in {"exact": exact, "reference": reference, "words": tree.find_all}.items():
        rates = {name: rate(find, some, given.rounds) for name, some in (("dense", dense), ("sparse", sparse))}
        row = {"way": way, "processes": 1, "captions": PART, **{f"{name}_per_s": n for name, n in rates.items()}}
        rows.append(row | quality(find))
    columns = [*COLUMNS, *quality(exact)]
    rows += stages(given.captions)
    tags = len(build_vocabulary(MatcherSettings().lists(), MatcherSettings().surnames).tags)
    letters = round(sum(map(len, dense)) / PART, 1)
    setting = {"tags": tags, "letters": letters, "rounds": given.rounds}
    table = [{column: row.get(column, "") for column in columns} for row in rows]
    write_table("captions", table, setting, ("pyarrow", "pyahocorasick", "clip-interrogator"))


if __name__ == "__main__":
    main()
