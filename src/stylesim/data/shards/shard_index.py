"""The index of shards: written by `python -m stylesim.index folder=...`, read by load_index."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from stylesim.core.errors import StylesimError
from stylesim.core.progress import progress
from stylesim.data.roots import Root, opened
from stylesim.data.shards.tar_reader import Slot, group, read_shard, read_slot

INDEX = "index.json"
SHARD = re.compile(r"[\w+=,-][\w.+=,-]*\.tar(\.gz)?")  # a plain name: an index from elsewhere cannot point outside


@dataclass(frozen=True)
class Shard:
    """One shard as its index describes it."""

    name: str
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Index:
    """What `index.json` says about a root."""

    root: Root
    shards: tuple[Shard, ...]
    tags: dict[str, int]

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def counts(self) -> tuple[int, ...]:
        """Samples of each shard."""
        return tuple(shard.count for shard in self.shards)

    def __str__(self) -> str:
        return f"{self.count:,} images with {len(self.tags):,} tags in {len(self.shards)} shards"

    def read(self, number: int, places: Sequence[int]) -> Iterator[Slot]:
        """The samples at these places of shard `number`, as `read_shard` gives them."""
        shard = self.shards[number]
        return read_shard(self.root.url(shard.name), f"{self.root.name}/{stem(shard.name)}", places)


def stem(shard: str) -> str:
    """The name of a shard without `.tar` or `.tar.gz`."""
    return shard.removesuffix(".gz").removesuffix(".tar")


def load_index(root: Root) -> Index:
    """Read the `index.json` of a root and compare it with the files of a local one, by name and size.

    Raises `StylesimError` if the root or its index is missing or empty, or if the two disagree.
    """
    if root.folder is not None:
        if not root.folder.is_dir():
            raise StylesimError(f"there is no folder {root.folder.absolute()}: set data.root to a folder of shards")
        if not (root.folder / INDEX).is_file():
            found = "is empty" if not _shard_files(root.folder) else f"holds shards, but no {INDEX}"
            raise StylesimError(
                f"{root.folder} {found}: put shards (.tar, .tar.gz) there and run "
                f"`python -m stylesim.index folder={root.folder}`"
            )
    try:
        with opened(root.url(INDEX)) as stream:
            raw = json.loads(stream.read())
        shards = tuple(Shard(s["name"], int(s["count"]), int(s["bytes"]), s["sha256"]) for s in raw["shards"])
        index = Index(root, shards, {str(tag): int(count) for tag, count in raw["tags"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StylesimError(
            f"{root.url(INDEX)} cannot be read ({type(error).__name__}: {error}): check the address, or make "
            f"the index with `python -m stylesim.index folder=FOLDER` where the shards lie"
        ) from error
    if not index.count:
        raise StylesimError(f"{root.location} is empty: its {INDEX} lists no image")
    for shard in index.shards:
        if not SHARD.fullmatch(shard.name) or shard.count < 0:
            raise StylesimError(
                f"{root.url(INDEX)} lists {shard.name!r} with {shard.count} images: no shard is like that"
            )
    if root.folder is not None:
        _compare(index, root.folder)
    return index


def _compare(index: Index, folder: Path) -> None:
    """Refuse an index that disagrees with the files beside it."""
    found = {path.name: path.stat().st_size for path in _shard_files(folder)}
    listed = {shard.name: shard.bytes for shard in index.shards}
    wrong = [f"{name} is missing" for name in sorted(listed.keys() - found.keys())]
    wrong += [f"{name} is not listed" for name in sorted(found.keys() - listed.keys())]
    wrong += [
        f"{name} has {found[name]:,} bytes instead of {listed[name]:,}"
        for name in sorted(listed.keys() & found.keys())
        if found[name] != listed[name]
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise StylesimError(
            f"{folder / INDEX} disagrees with the files beside it: {'; '.join(wrong[:3])}{more}. "
            f"Restore them, or run `python -m stylesim.index folder={folder}` again"
        )


def _shard_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if SHARD.fullmatch(path.name) and path.is_file())


def index_shards(folder: str | Path, *, processes: int | None = None, show: bool = True) -> list[str]:
    """Write `index.json` for the shards of a folder, several at once; return a sentence for each problem.

    `count` of a truncated shard is what can be read of it. Interrupted and called again, it goes on with
    the shards that are not done. Raises `StylesimError` if there is no shard.
    """
    folder = Path(folder)
    paths = _shard_files(folder) if folder.is_dir() else []
    if not paths:
        raise StylesimError(
            f"there is no shard (.tar, .tar.gz) in {folder.absolute()}: give the folder that holds them"
        )
    journal = folder / f".{INDEX}.part"
    kept = _journal(journal)
    done = {path.name: kept[_stamp(path)] for path in paths if _stamp(path) in kept}
    todo = [path for path in paths if path.name not in done]
    with journal.open("a") as log, progress("indexing", len(paths), unit="shards", show=show) as advance:
        advance(len(done))
        for path, entry in _examine_all(todo, processes):
            done[path.name] = entry
            log.write(json.dumps([_stamp(path), entry]) + "\n")
            log.flush()
            advance(1)
    entries = [done[path.name] for path in paths]
    tags = sum((Counter(entry.pop("tags")) for entry in entries), Counter())
    problems = [problem for entry in entries for problem in entry.pop("problems")]
    index = {
        "format": 1,
        "count": sum(e["count"] for e in entries),
        "shards": entries,
        "tags": dict(sorted(tags.items())),
    }
    part = folder / f"{INDEX}.part"
    part.write_text(json.dumps(index, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder / INDEX)
    journal.unlink()
    return problems


def _examine_all(paths: list[Path], processes: int | None) -> Iterator[tuple[Path, dict]]:
    """Entries of shards as they are done."""
    # Starting a process costs seconds (webdataset imports torch): a few small shards do not repay it.
    useful = 1 + sum(path.stat().st_size for path in paths) // (64 << 20)
    processes = processes or min(os.cpu_count() or 1, len(paths), useful)
    if processes <= 1:
        yield from ((path, _examine(path)) for path in paths)
        return
    context = get_context("forkserver")  # forking a process that has threads (torch, rich) can deadlock
    context.set_forkserver_preload([__name__, "webdataset.tariterators"])
    with ProcessPoolExecutor(processes, context) as pool:
        tasks = {pool.submit(_examine, path): path for path in paths}
        yield from ((tasks[task], task.result()) for task in as_completed(tasks))


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def _journal(path: Path) -> dict[str, dict]:
    """Finished shards of an interrupted run, by their stamps; its last line may be cut off."""
    entries = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            stamp, entry = json.loads(line)
        except ValueError:
            continue
        entries[stamp] = entry
    return entries


def _examine(path: Path) -> dict:
    """The index entry of one shard, its tag counts, and its problems."""
    tags: Counter[str] = Counter()
    keys: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    ending = ""
    try:
        with opened(str(path)) as stream:
            for sample in group(stream):
                slot = read_slot(sample, stem(path.name))
                keys[slot.key] += 1
                if slot.reason:
                    reasons[slot.reason] += 1
                tags.update(set(slot.labels.get("tags", ())))
    except Exception as error:  # a stranger's file
        ending = f"{path.name} breaks off after {keys.total()} samples ({error})"
    problems = [ending] if ending else []
    problems += [f"{path.name}: {count} samples with {reason}" for reason, count in reasons.items()]
    if doubles := [key for key, count in keys.items() if count > 1]:
        problems.append(f"{path.name}: {len(doubles)} keys stand there more than once, such as {doubles[0]}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entry = asdict(Shard(path.name, keys.total(), path.stat().st_size, digest))
    return entry | {"tags": tags, "problems": problems}


def verify_digests(index: Index, *, show: bool = True) -> None:
    """Read the shards of a local root through and compare their SHA-256 with the index.

    Raises `StylesimError` naming the first one that differs.
    """
    with progress("verifying", len(index.shards), unit="shards", show=show) as advance:
        for shard in index.shards:
            with Path(index.root.url(shard.name)).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
                    raise StylesimError(
                        f"{index.root.url(shard.name)} is not the file that was indexed: its SHA-256 differs"
                    )
            advance(1)
