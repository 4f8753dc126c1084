"""Make the index of shards: `python -m stylesim.index folder=...`."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from stylesim.core.errors import StylesimError
from stylesim.core.progress import progress
from stylesim.data.roots import opened
from stylesim.data.shards.shard_index import INDEX, Shard, shard_files, stem
from stylesim.data.shards.tar_reader import as_sample, group


def index_shards(folder: str | Path, *, processes: int | None = None, show: bool = True) -> list[str]:
    """Write `index.json` for the shards of a folder, several at once; return a sentence for each problem.

    `count` of a truncated shard is what can be read of it. Interrupted and called again, it goes on with
    the shards that are not done. Raises `StylesimError` if there is no shard.
    """
    folder = Path(folder)
    paths = shard_files(folder) if folder.is_dir() else []
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
            for members in group(stream):
                sample = as_sample(members, stem(path.name))
                keys[sample.id] += 1
                if sample.problem:
                    reasons[sample.problem] += 1
                tags.update(set(sample.tags))
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
