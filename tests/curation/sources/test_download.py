"""Downloads by a stand-in for img2dataset, which writes what img2dataset 1.47 writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import encoded_image

from stylesim.core.errors import StylesimError
from stylesim.curation.image_locator import read_image_bytes
from stylesim.curation.sources.download import SHARD_SIZE
from stylesim.curation.sources.url_tables import laion
from stylesim.curation.stage import Stage, read_stage

# Every fifth URL is dead. With FAIL in the environment, it exits after its first tar with that code.
COMMAND = """#!{python}
import io, json, os, sys, tarfile
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
encoded_image = Path(__file__).with_name("encoded_image.jpg").read_bytes()
options = dict(a.removeprefix("--").split("=", 1) for a in sys.argv[1:])
assert options["input_format"] == "parquet" and options["output_format"] == "webdataset", options
out = Path(options["output_folder"])
done = [int(file.name.split("_")[0]) for file in out.glob("*.json")]  # as img2dataset does
with (out / "calls.txt").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + chr(10))
additional = json.loads(options["save_additional_columns"])
assert not {{"key", "url", "caption", "status", "md5", "width", "height"}} & set(additional), "reserved"
columns = additional + [options["caption_col"], options["url_col"]]
size, shard = int(options["number_sample_per_shard"]), 0
for part in sorted(Path(options["url_list"]).glob("*.parquet")):
    table = pq.read_table(part, columns=columns)
    for first in range(0, len(table), size):
        rows, members = table.slice(first, size).to_pylist(), {{}}
        name = f"{{shard:05d}}"
        shard += 1
        if (out / f"{{name}}_stats.json").exists():
            continue
        for n, row in enumerate(rows):
            dead = row["url"].endswith("0") or row["url"].endswith("5")
            row |= {{"key": f"{{name}}{{n:04d}}", "status": "failed_to_download" if dead else "success"}}
            row |= {{"error_message": "HTTP Error 404: Not Found" if dead else None}}
            row |= {{"width": None if dead else 40, "height": None if dead else 30}}
            if not dead:
                members |= {{row["key"] + ".jpg": encoded_image, row["key"] + ".json": json.dumps(row).encode()}}
                members |= {{row["key"] + ".txt": (row["caption"] or "").encode()}}
        schema = table.schema.append(pa.field("key", pa.string())).append(pa.field("status", pa.string()))
        schema = schema.append(pa.field("error_message", pa.string()))
        schema = schema.append(pa.field("width", pa.int32())).append(pa.field("height", pa.int32()))
        pq.write_table(pa.Table.from_pylist(rows, schema), out / f"{{name}}.parquet")
        with tarfile.open(out / f"{{name}}.tar", "w") as tar:
            for member, data in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        dead = sum(row["status"] != "success" for row in rows)
        status = {{"HTTP Error 404: Not Found": dead, "success": len(rows) - dead}}
        (out / f"{{name}}_stats.json").write_text(json.dumps({{"count": len(rows), "status_dict": status}}))
        if os.environ.get("FAIL"):
            sys.exit(int(os.environ["FAIL"]))
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-in on the PATH."""
    file = tmp_path / "bin/img2dataset"
    file.parent.mkdir()
    file.with_name("encoded_image.jpg").write_bytes(encoded_image(1))
    file.write_text(COMMAND.format(python=sys.executable))
    file.chmod(0o755)
    monkeypatch.setenv("PATH", str(file.parent), prepend=":")
    return file


@pytest.fixture
def urls(tmp_path: Path) -> Path:
    table = {
        "URL": [f"https://example.org/{n}" for n in range(12)],
        "TEXT": [f"by Claude Monet {n}" if n else None for n in range(12)],
        "AESTHETIC_SCORE": pa.array([6.5] * 12, pa.float32()),
        "tags": [["tag:own"]] * 12,
    }
    pq.write_table(pa.table(table), tmp_path / "urls.parquet")
    return tmp_path / "urls.parquet"


def fetch(tmp_path: Path, urls: Path, **options: int) -> tuple[dict, Stage]:
    stage = Stage(tmp_path / "out/1-sources", {"fetch": True, **options}, processes=1, redo=True, show=False)
    return laion(stage, path=str(urls), fetch=True, rows=6, **options), stage


def test_dead_urls_are_counted_and_other_columns_are_preserved(tmp_path: Path, urls: Path, command: Path):
    counts, stage = fetch(tmp_path, urls)
    assert counts == {"images": 9, "rows": 12, "dead_url": 3, "listed_images": 12, "listed_rows": 12}
    rows = read_stage(stage.folder).to_pylist()
    assert [row["id"] for row in rows] == [f"urls/{n:09d}" for n in range(12) if n % 5]
    assert (rows[0]["caption"], rows[0]["tags"], rows[0]["width"]) == ("by Claude Monet 1", ["tag:own"], 40)
    assert rows[0]["aesthetic"] == pytest.approx(6.5)
    assert read_image_bytes(rows[0]["image"])[:2] == b"\xff\xd8"
    summary = json.loads((stage.folder / "summary.json").read_text())
    assert summary["reasons"] == {"HTTP Error 404: Not Found": 3}
    dropped = pq.read_table(stage.folder / "dropped-00000.parquet").to_pylist()
    assert dropped[0] == {"id": "urls/000000000", "reason": "dead_url: HTTP Error 404: Not Found"}
    call = json.loads((tmp_path / "out/0-images/calls.txt").read_text())
    assert {"--image_size=384", "--resize_mode=keep_ratio", f"--number_sample_per_shard={SHARD_SIZE}"} <= set(call)


@pytest.mark.slow
def test_a_failed_download_is_reported_and_continues(
    tmp_path: Path, urls: Path, command: Path, monkeypatch: pytest.MonkeyPatch
):
    for code, message in (("0", "has requested 6 of 12 URLs"), ("3", "img2dataset ended with exit code 3")):
        monkeypatch.setenv("FAIL", code)
        with pytest.raises(StylesimError, match=message):
            fetch(tmp_path, urls)
    tar = tmp_path / "out/0-images/00000.tar"
    before = tar.stat().st_mtime_ns
    monkeypatch.delenv("FAIL")
    counts, stage = fetch(tmp_path, urls)
    assert counts["images"] == 9
    assert tar.stat().st_mtime_ns == before
    (stage.folder / "summary.json").unlink()
    calls = (tmp_path / "out/0-images/calls.txt").read_text()
    (stage.folder / "plan.json").write_text('{"settings": {}, "inputs": {}}')
    assert fetch(tmp_path, urls)[0] == counts
    assert (tmp_path / "out/0-images/calls.txt").read_text() == calls, "finished downloads are not repeated"


def test_images_of_other_urls_are_never_deleted(tmp_path: Path, urls: Path, command: Path):
    fetch(tmp_path, urls)
    with pytest.raises(StylesimError, match="holds images of other URLs, or of another size"):
        fetch(tmp_path, urls, image_size=224)
    assert (tmp_path / "out/0-images/00000.tar").exists()


def test_a_missing_command_is_reported_with_how_to_install_it(
    tmp_path: Path, urls: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(StylesimError, match="uv tool install img2dataset"):
        fetch(tmp_path, urls)
