"""Make the index of shards: `stylesim index folder=...`."""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from itertools import takewhile
from multiprocessing import get_context
from pathlib import Path

from stylesim.core.errors import DataError
from stylesim.core.files import sha256_of_file, write_text
from stylesim.core.progress import progress
from stylesim.data.roots import open_url
from stylesim.data.shards.shard_index import BLOCK, INDEX, Shard, describe_misnamed, shard_files, stem
from stylesim.data.shards.tar_reader import as_sample, group_members

EXAMPLES = 20
"""Number of problems that the index stores; the call returns all of them."""


def index_shards(folder: str | Path, *, processes: int | None = None, show: bool = True) -> list[str]:
    """Write `index.json` for the shards of a folder: names, sizes, SHA-256, counts, tags, where samples begin.

    Of a truncated shard, only the samples that can be read count. The next call continues an interrupted one.

    Args:
        folder: The folder that holds the shards.
        processes: Number of processes; by default one per core, fewer for small shards.
        show: Whether to show progress.

    Returns:
        A sentence for each problem in the shards.

    Raises:
        DataError: If there is no shard.
    """
    folder = Path(folder).expanduser()
    paths = shard_files(folder) if folder.is_dir() else []
    if not paths:
        raise DataError(
            f"There is no shard (.tar, .tar.gz) in {folder.absolute()}: give the folder that holds the shards."
            f"{describe_misnamed(folder)}"
        )
    journal = folder / f".{INDEX}.part"
    known = _read_journal(journal)
    done = {path.name: known[_stamp(path)] for path in paths if _stamp(path) in known}
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
        "count": sum(entry["count"] for entry in entries),
        "shards": entries,
        "tags": dict(sorted(tags.items())),
    }
    if problems:
        index["problems"] = problems[:EXAMPLES]
    write_text(folder / INDEX, json.dumps(index, ensure_ascii=False, indent=1) + "\n")
    journal.unlink()
    return problems


def _examine_all(paths: list[Path], processes: int | None) -> Iterator[tuple[Path, dict]]:
    """Yield the entry of each shard as soon as it is done."""
    # Starting a process takes a second, which is not worth it for a few small shards.
    useful = 1 + sum(path.stat().st_size for path in paths) // (64 << 20)
    processes = processes or min(os.cpu_count() or 1, len(paths), useful)
    if processes <= 1:
        yield from ((path, _examine(path)) for path in paths)
        return
    context = get_context("forkserver")  # forking a process that has threads (torch, rich) can deadlock
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(processes, context) as pool:
        tasks = {pool.submit(_examine, path): path for path in paths}
        yield from ((tasks[task], task.result()) for task in as_completed(tasks))


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{path.name} {stat.st_size} {stat.st_mtime_ns}"


def _read_journal(path: Path) -> dict[str, dict]:
    """Return the finished shards of an interrupted call, by their stamps; the last line may be cut off."""
    entries = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            stamp, entry = json.loads(line)
        except ValueError:
            continue
        entries[stamp] = entry
    return entries


def _examine(path: Path) -> dict:
    """Return the index entry of one shard, with its tag counts and its problems."""
    tags: Counter[str] = Counter()
    ids: Counter[str] = Counter()
    unreadable: Counter[str] = Counter()
    offsets: list[int | None] = []
    ending = ""
    try:
        with open_url(str(path)) as stream:
            for members in group_members(stream):
                sample = as_sample(members, stem(path.name))
                ids[sample.id] += 1
                offsets.append(members.start)
                if sample.problem:
                    unreadable[sample.problem] += 1
                tags.update(set(sample.tags))
    except Exception as error:  # tarfile, zlib and others raise errors of many kinds for a damaged shard
        ending = f"{path.name} breaks off after {ids.total()} samples ({error})"
    problems = [ending] if ending else []
    problems += [f"{path.name}: {count} samples with {problem}" for problem, count in unreadable.items()]
    if doubles := [id for id, count in ids.items() if count > 1]:
        problems.append(f"{path.name}: {len(doubles)} keys occur more than once, such as {doubles[0]}")
    entry = asdict(Shard(path.name, ids.total(), path.stat().st_size, sha256_of_file(path)))
    if _is_plain_tar(path):
        entry["starts"] = _starts(offsets)
    else:
        del entry["starts"]
    return entry | {"tags": tags, "problems": problems}


def _starts(offsets: Sequence[int | None]) -> str:
    """Return `Shard.starts` of samples that begin at these byte offsets, up to the first that is not known."""
    blocks = [offset // BLOCK for offset in takewhile(lambda offset: offset is not None, offsets) if offset is not None]
    return " ".join(str(block - before) for before, block in zip([0, *blocks], blocks, strict=False))


def _is_plain_tar(path: Path) -> bool:
    """Return whether a file begins with the header of a tar: a compressed one, whatever its name, does not."""
    with path.open("rb") as file:
        try:
            tarfile.TarInfo.frombuf(file.read(BLOCK), "utf-8", "replace")
        except tarfile.TarError:
            return False
    return True
