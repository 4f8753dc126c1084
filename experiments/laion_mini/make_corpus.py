"""Make a small corpus of captioned images as img2dataset writes it, with planted faults that a curation has to find.

`python experiments/laion_mini/make_corpus.py --seed 2 --out outputs/laion_mini/2/corpus` chooses drawings of StyleCross
and writes `images/00000.tar`, `.parquet` and `_stats.json`, ... (as `img2dataset --output_format webdataset
--number_sample_per_shard 1000` does), and `truth.parquet`: what each image is, which the curation never reads.
Everything is a function of the seed: the same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import random
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from captions import Caption, draw_caption, subject_of
from PIL import Image

STYLECROSS = Path(__file__).parents[2] / "data" / "stylecross"
SHARES = {  # of all rows
    "original": 0.64,
    "copy": 0.04,
    "crop": 0.05,
    "flip": 0.04,
    "recompressed": 0.05,
    "resized": 0.05,
    "tiny": 0.02,
    "broken": 0.01,
    "unloved": 0.02,
    "dead": 0.02,
    "test": 0.03,
    "recompressed test": 0.03,
}
DUPLICATES = ("copy", "crop", "flip", "recompressed", "resized")
# Contents with these words are left out: a subject must not name a medium, an artist or a movement by itself.
TELLTALE_WORDS = {"artist", "diagram", "drawing", "futurism", "jigsaw", "painting", "photo", "photocopy", "picture"}
TELLTALE_WORDS |= {"portrait", "statue", "stipple"}
SHARD_SIZE = 1000
FAILURES = ("HTTP Error 404: Not Found", "HTTP Error 403: Forbidden", "<urlopen error timed out>")
SCHEMA = pa.schema(
    [
        *((name, pa.float64()) for name in ("similarity", "punsafe", "pwatermark", "aesthetic")),
        *((name, pa.string()) for name in ("caption", "url", "key", "status", "error_message")),
        *((name, pa.int32()) for name in ("width", "height", "original_width", "original_height")),
        *((name, pa.string()) for name in ("exif", "sha256")),
    ]
)
"""The requested columns of LAION-Aesthetics, then img2dataset's own, in its order."""


class Drawing(NamedTuple):
    """One drawing of StyleCross."""

    key: str
    style: str
    manner: str
    content: str
    webp: bytes


class Sample(NamedTuple):
    """One row of the corpus."""

    kind: str
    drawing: Drawing
    image: bytes | None
    size: tuple[int, int] | None
    caption: Caption
    aesthetic: float


@cache
def read_drawings(split: str) -> tuple[Drawing, ...]:
    """Return the drawings of a split whose subjects name nothing that the curation searches for."""
    drawings = []
    for path in sorted((STYLECROSS / split).glob("*.tar.gz")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name in (name for name in members if name.endswith(".webp")):
            key = name.removesuffix(".webp")
            labels = json.loads(members[f"{key}.json"])
            groups = dict(tag.split(":", 1) for tag in labels["tags"])
            if not any(word.removesuffix("s") in TELLTALE_WORDS for word in subject_of(labels["content"]).split()):
                drawings.append(Drawing(key, groups["set"], groups["manner"], labels["content"], members[name]))
    return tuple(drawings)


def draw_samples(count: int, seed: int) -> list[Sample]:
    """Draw the corpus, ordered by kind: `count` rows, each kind with its share."""
    rng = random.Random(seed)
    numbers = {kind: round(count * share) for kind, share in SHARES.items()}
    train = iter(rng.sample(pool := read_drawings("train"), len(pool)))
    tests = read_drawings("unseen_contents") + read_drawings("unseen_styles")
    test = iter(rng.sample(tests, len(tests)))
    originals = [next(train) for _ in range(numbers["original"])]
    samples = []
    for kind, number in numbers.items():
        for place in range(number):
            if kind == "original":
                drawing = originals[place]
            elif kind in DUPLICATES:
                drawing = rng.choice(originals)
            else:
                drawing = next(test if "test" in kind else train)
            samples.append(draw_sample(rng, kind, drawing))
    return samples


def draw_sample(rng: random.Random, kind: str, drawing: Drawing) -> Sample:
    image, size = draw_image(rng, kind, drawing.webp)
    caption = draw_caption(rng, drawing.style, drawing.manner, subject_of(drawing.content))
    aesthetic = round(rng.uniform(3, 5) if kind == "unloved" else rng.uniform(6, 8), 3)
    return Sample(kind, drawing, image, size, caption, aesthetic)


def draw_image(rng: random.Random, kind: str, webp: bytes) -> tuple[bytes | None, tuple[int, int] | None]:
    """Return a drawing as JPEG with the fault of its kind, and its size in px; (None, None) for a dead link."""
    if kind == "dead":
        return None, None
    image, quality = Image.open(io.BytesIO(webp)).convert("RGB"), 95
    if kind == "crop":
        image = crop(rng, image)
    elif kind == "flip":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    elif kind in ("recompressed", "recompressed test"):
        quality = rng.randint(10, 30)
    elif kind in ("resized", "tiny"):
        sides = (16, 40) if kind == "tiny" else rng.choice(((64, 88), (112, 192)))
        image = image.resize((side := rng.randint(*sides), side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    data = out.getvalue()
    return (data[: int(len(data) * rng.uniform(0.2, 0.8))] if kind == "broken" else data), image.size


def crop(rng: random.Random, image: Image.Image) -> Image.Image:
    """Crop a square of 70 to 90 % of the area, anywhere in the image."""
    side = round(image.width * rng.uniform(0.7, 0.9) ** 0.5)
    left, top = rng.randint(0, image.width - side), rng.randint(0, image.height - side)
    return image.crop((left, top, left + side, top + side))


def write_corpus(out: Path, samples: Sequence[Sample], seed: int) -> None:
    """Write shards, tables and truth. Rows are shuffled, and again within a shard: downloads finish in any order."""
    rng, truth = random.Random(f"order {seed}"), []
    (out / "images").mkdir(parents=True)
    order = rng.sample(range(len(samples)), len(samples))
    for number, first in enumerate(range(0, len(order), SHARD_SIZE)):
        places = rng.sample(shard := list(enumerate(order[first : first + SHARD_SIZE])), len(shard))
        rows = [row(rng, number, place, samples[index]) for place, index in places]
        write_shard(out / "images" / f"{number:05d}", rows, [samples[index] for _, index in places])
        truth += [truth_row(meta["key"], samples[index]) for meta, (_, index) in zip(rows, places, strict=True)]
    pq.write_table(pa.Table.from_pylist(truth), out / "truth.parquet")


def row(rng: random.Random, shard: int, place: int, sample: Sample) -> dict:
    """Return what img2dataset records about one download."""
    key, (width, height) = f"{shard:05d}{place:03d}", sample.size or (None, None)
    return {
        "similarity": round(rng.uniform(0.28, 0.4), 4),
        "punsafe": round(rng.uniform(0, 0.1), 4),
        "pwatermark": round(rng.uniform(0, 0.5), 4),
        "aesthetic": sample.aesthetic,
        "caption": sample.caption.text,
        "url": f"https://example.org/{hashlib.sha1(key.encode()).hexdigest()[:12]}.jpg",
        "key": key,
        "status": "failed_to_download" if sample.image is None else "success",
        "error_message": rng.choice(FAILURES) if sample.image is None else None,
        "width": width,
        "height": height,
        "original_width": width,
        "original_height": height,
        "exif": "{}" if sample.image else None,
        "sha256": hashlib.sha256(sample.image).hexdigest() if sample.image else None,
    }


def truth_row(key: str, sample: Sample) -> dict:
    drawing, caption = sample.drawing, sample.caption
    return {
        "id": key,
        "kind": sample.kind,
        "picture": drawing.key,  # rows with the same one are duplicates of each other
        "style": drawing.style,
        "content": drawing.content,
        "tags": list(caption.tags),
        "naming": caption.naming,
        "decoy": caption.decoy,
    }


def write_shard(path: Path, rows: Sequence[dict], samples: Sequence[Sample]) -> None:
    """Write `<path>.tar`, `<path>.parquet` and `<path>_stats.json`, without any time stamps."""
    with tarfile.TarFile(path.with_suffix(".tar"), "w") as tar:
        for meta, sample in zip(rows, samples, strict=True):
            for name, data in members(meta, sample):
                info = tarfile.TarInfo(name)
                info.size, info.mode, info.uname, info.gname = len(data), 0o444, "bigdata", "bigdata"
                tar.addfile(info, io.BytesIO(data))
    pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), path.with_suffix(".parquet"))
    status = Counter(meta["error_message"] or meta["status"] for meta in rows)
    stats = {
        "count": len(rows),
        "successes": status["success"],
        "failed_to_download": len(rows) - status["success"],
        "failed_to_resize": 0,
        "duration": 1.0,
        "start_time": 0.0,
        "end_time": 1.0,
        "status_dict": dict(status),
    }
    path.with_name(f"{path.name}_stats.json").write_text(json.dumps(stats, indent=4))


def members(meta: dict, sample: Sample) -> Iterator[tuple[str, bytes]]:
    """Yield the members of a sample in webdataset's order; none if it could not be downloaded."""
    if sample.image is not None:
        yield f"{meta['key']}.jpg", sample.image
        yield f"{meta['key']}.json", json.dumps(meta, indent=4).encode()
        yield f"{meta['key']}.txt", meta["caption"].encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/laion_mini/2/corpus"), help="a new folder")
    parser.add_argument("--seed", type=int, default=2, help="determines everything (default: 2)")
    parser.add_argument("--images", type=int, default=5000, help="rows, including dead links (default: 5000)")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} already exists: give another --out, or remove it")
    samples, unfinished = draw_samples(args.images, args.seed), args.out.with_name(f".{args.out.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_corpus(unfinished, samples, args.seed)
    unfinished.rename(args.out)
    counts = Counter(sample.kind for sample in samples)
    print(f"{args.out}: {len(samples):,} rows, " + ", ".join(f"{number} {kind}" for kind, number in counts.items()))


if __name__ == "__main__":
    main()
