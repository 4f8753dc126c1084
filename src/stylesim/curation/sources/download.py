"""Images from URLs, by img2dataset's own command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stylesim.core.errors import StylesimError
from stylesim.core.files import write_json
from stylesim.curation.sources.columns import Slice
from stylesim.curation.sources.img2dataset import read_downloads
from stylesim.curation.stage import SUMMARY, Piece, Stage

SHARD = 10_000  # images of a tar, img2dataset's own default
CARRIED = ("id", "aesthetic", "nsfw", "content", "tags")
"""What img2dataset hands on with each image; it keeps the name md5 for itself."""
MISSING = (
    "the images are fetched by img2dataset, and there is no such command on the PATH. It wants packages older than"
    " ours, so give it an environment of its own: `uv tool install img2dataset`, or `pipx install img2dataset`."
)


def fetched(
    stage: Stage,
    read: Callable[[Slice], Piece],
    pieces: Sequence[Slice],
    *,
    image_size: int,
    threads: int,
    **notes: Mapping[str, int],
) -> dict[str, Any]:
    """Stage 1 from URLs whose images img2dataset downloads: its short side at most `image_size` px, never enlarged.

    The list of URLs goes to `<out>/0-urls`, the images to `<out>/0-images`, which no `redo` ever throws away.
    Interrupted, img2dataset goes on with the tars that are not done; done, it is not asked again. URLs that it found
    dead are counted and named in the dropped rows.

    Raises:
        StylesimError: If the command is missing, fails or leaves URLs out, or `0-images` holds the images of another
            list.
    """
    command = shutil.which("img2dataset")
    if command is None:
        raise StylesimError(MISSING)
    urls = replace(stage, folder=stage.folder.parent / "0-urls", source=None)
    plan = json.loads((stage.folder / "plan.json").read_text())
    counts = urls.begin(**plan["inputs"])
    if counts is None:
        counts = urls.finish(urls.each(read, pieces))
    images = stage.folder.parent.absolute() / "0-images"
    _download(command, urls.folder, images, counts["images"], image_size, threads, stage.processes)
    found = read_downloads(stage, images)
    return stage.finish(found | {f"listed_{name}": n for name, n in counts.items()}, reasons=_reasons(images), **notes)


def _download(
    command: str, urls: Path, images: Path, count: int, image_size: int, threads: int, processes: int | None
) -> None:
    done = images.with_suffix(".json")  # beside the folder, where img2dataset takes every JSON for its own
    plan = {"urls": json.loads((urls / SUMMARY).read_text())["content"], "image_size": image_size, "done": False}
    if done.exists():
        begun = json.loads(done.read_text())
        if {**begun, "done": False} != plan:
            raise StylesimError(
                f"{images} holds images of other URLs, or of another size: move it away, or give another out=..."
            )
        if begun["done"]:
            return
    images.mkdir(parents=True, exist_ok=True)
    write_json(done, plan)
    options = {
        "url_list": urls,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "save_additional_columns": json.dumps(CARRIED),
        "output_format": "webdataset",
        "output_folder": images,
        "number_sample_per_shard": SHARD,
        "image_size": image_size,
        "resize_mode": "keep_ratio",
        "resize_only_if_bigger": True,
        "processes_count": processes or os.cpu_count() or 1,
        "thread_count": threads,
        "incremental_mode": "incremental",
    }
    try:
        subprocess.run([command, *(f"--{name}={value}" for name, value in options.items())], check=True)
    except subprocess.CalledProcessError as error:
        raise StylesimError(
            f"img2dataset ended with code {error.returncode}; its message stands above. The same command goes on with"
            " what it has not fetched."
        ) from error
    asked = sum(statistics["count"] for statistics in _statistics(images))
    if asked < count:  # it ends well even where tars have failed
        raise StylesimError(
            f"img2dataset has asked for {asked:,} of {count:,} URLs; its messages stand above. The same command goes on"
            " with the others."
        )
    write_json(done, plan | {"done": True})


def _statistics(images: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(images.glob("*_stats.json"))]


def _reasons(images: Path, most: int = 20) -> dict[str, int]:
    """Why images are not there, by img2dataset's statistics, the most frequent first."""
    reasons: Counter[str] = Counter()
    for statistics in _statistics(images):
        reasons.update(statistics["status_dict"])
    del reasons["success"]
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:most])
