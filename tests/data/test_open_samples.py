"""Opening the images of any locations."""

from __future__ import annotations

from pathlib import Path

from conftest import STYLES, draw

from stylesim.data.open_samples import open_samples
from stylesim.data.roots import name_roots


def test_shards_and_folders_are_read_one_after_the_other_with_their_names(shards: Path, tmp_path: Path) -> None:
    for style in STYLES:
        (tmp_path / "mine" / style).mkdir(parents=True)
        (tmp_path / "mine" / style / "one.png").write_bytes(draw(style, 1))
    items = open_samples(name_roots([str(shards / "validation"), str(tmp_path / "mine")]))
    ids = [item.id for item in items]
    assert len(ids) == len(items) == len(set(ids)) == 18 + 3
    assert ids[-3:] == [f"mine/{style}/one.png" for style in sorted(STYLES)]
    assert not any(item.problem for item in items)
