"""Download images from URLs with the command img2dataset."""

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

from stylesim.core.errors import ConfigError, DataError
from stylesim.core.files import write_json
from stylesim.core.stages.stage import PLAN, SUMMARY
from stylesim.core.stages.stage_parts import Part
from stylesim.curation.sources.img2dataset import read_downloads
from stylesim.curation.sources.parquet_slices import Slice
from stylesim.curation.stage import Stage

SHARD_SIZE = 10_000
"""Images per tar, img2dataset's own default."""
EXTRA_COLUMNS = ("id", "aesthetic", "nsfw", "content", "tags")
"""What img2dataset stores with each image. It reserves the name md5 for itself."""
MISSING_COMMAND = (
    "Images are downloaded with img2dataset, but there is no such command on the PATH. It needs older packages than"
    " stylesim, so install it in an environment of its own: `uv tool install img2dataset`, or `pipx install"
    " img2dataset`."
)


def download_images(
    stage: Stage,
    read: Callable[[Slice], Part],
    pieces: Sequence[Slice],
    *,
    image_size: int,
    threads: int,
    **notes: Mapping[str, int],
) -> dict[str, Any]:
    """Run stage 1 on URLs whose images are downloaded with img2dataset.

    The list of URLs is written to `<out>/0-urls`, the images to `<out>/0-images`, which no `redo` ever deletes. If it
    was interrupted, img2dataset continues with the tars that are missing; if it has finished, it is not run again.
    Dead URLs are counted, and listed in the dropped rows.

    Args:
        stage: The folder to write to; it has begun.
        read: Reads a slice of a table of URLs.
        pieces: The slices.
        image_size: The largest short side of an image, in px; images are never enlarged.
        threads: Simultaneous downloads.
        **notes: Further entries of the summary.

    Returns:
        The counts of the stage.

    Raises:
        ConfigError: If the command is missing, or `0-images` holds the images of another list.
        DataError: If the command fails, or skips URLs.
    """
    command = shutil.which("img2dataset")
    if command is None:
        raise ConfigError(MISSING_COMMAND)
    urls = replace(stage, folder=stage.folder.parent / "0-urls", source=None)
    plan = json.loads((stage.folder / PLAN).read_text(encoding="utf-8"))
    listed = urls.begin(**plan["inputs"])
    if listed is None:
        listed = urls.finish(urls.map_inputs(read, pieces))
    images = stage.folder.parent.absolute() / "0-images"
    _run_img2dataset(command, urls.folder, images, listed["images"], image_size, threads, stage.processes)
    counts = read_downloads(stage, images)
    counts_of_list = {f"listed_{name}": n for name, n in listed.items()}
    return stage.finish(counts | counts_of_list, reasons=_failure_reasons(images), **notes)


def _run_img2dataset(
    command: str, urls: Path, images: Path, count: int, image_size: int, threads: int, processes: int | None
) -> None:
    state_file = images.with_suffix(".json")  # not inside the folder, where img2dataset reads every JSON file
    content = json.loads((urls / SUMMARY).read_text(encoding="utf-8"))["content"]
    plan = {"urls": content, "image_size": image_size, "done": False}
    if state_file.exists():
        begun = json.loads(state_file.read_text(encoding="utf-8"))
        if {**begun, "done": False} != plan:
            raise ConfigError(
                f"{images} holds images of other URLs, or of another size: move it away, or give another out=..."
            )
        if begun["done"]:
            return
    images.mkdir(parents=True, exist_ok=True)
    write_json(state_file, plan)
    options = {
        "url_list": urls,
        "input_format": "parquet",
        "url_col": "url",
        "caption_col": "caption",
        "save_additional_columns": json.dumps(EXTRA_COLUMNS),
        "output_format": "webdataset",
        "output_folder": images,
        "number_sample_per_shard": SHARD_SIZE,
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
        raise DataError(
            f"img2dataset ended with exit code {error.returncode}; see its message above. Run the same command again to"
            " continue with the images that are missing."
        ) from error
    requested = sum(statistics["count"] for statistics in _statistics(images))
    if requested < count:  # its exit code is 0 even if tars have failed
        raise DataError(
            f"img2dataset has requested {requested:,} of {count:,} URLs; see its messages above. Run the same command"
            " again to continue with the others."
        )
    write_json(state_file, plan | {"done": True})


def _statistics(images: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(images.glob("*_stats.json"))]


def _failure_reasons(images: Path, most: int = 20) -> dict[str, int]:
    """Return why images are missing according to img2dataset's statistics, the most frequent reason first."""
    reasons: Counter[str] = Counter()
    for statistics in _statistics(images):
        reasons.update(statistics["status_dict"])
    del reasons["success"]
    return dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:most])
