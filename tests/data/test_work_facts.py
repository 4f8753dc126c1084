from __future__ import annotations

from pathlib import Path

from conftest import draw

from stylesim.data.roots import Root
from stylesim.data.shards.indexing import index_shards
from stylesim.data.shards.shard_writer import ShardWriter
from stylesim.data.work_facts import find_work_facts, known_facts


def test_facts_come_from_the_columns_of_a_table(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw("red", 1))
    (tmp_path / "b.png").write_bytes(draw("red", 2))
    table = tmp_path / "works.csv"
    table.write_text("path,label,Title,license,url\na.png,x,The Bay,CC0,https://example.org/a\nb.png,x,,,\n")
    root = Root(str(table), "works")
    facts = find_work_facts([root], ["works/a.png", "works/b.png", "other/a.png"])
    assert facts == {"works/a.png": {"title": "The Bay", "licence": "CC0", "url": "https://example.org/a"}}


def test_facts_come_from_the_samples_of_shards(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "shards", size=4) as writer:
        for number in range(6):
            labels = {"tags": ["set:red"], "author": f"A{number}", "licence": "MIT"}
            writer.write(f"k{number}", draw("red", number), labels, extension="png")
    index_shards(tmp_path / "shards", processes=1, show=False)
    samples = [f"shards/00000/k{number}" for number in range(4)] + ["shards/00001/k5"]
    facts = find_work_facts([Root(str(tmp_path / "shards"), "shards")], [samples[1], samples[4]])
    assert facts in (
        {samples[1]: {"author": "A1", "licence": "MIT"}, samples[4]: {"author": "A5", "licence": "MIT"}},
        {},
    )


def test_folders_and_places_that_are_gone_give_nothing(tmp_path: Path) -> None:
    assert find_work_facts([Root(str(tmp_path), "f")], ["f/x.png"]) == {}
    assert find_work_facts([Root(str(tmp_path / "gone.csv"), "g")], ["g/x.png"]) == {}
    assert find_work_facts([Root("https://example.org/", "w")], ["w/x.png"]) == {}


def test_only_text_is_a_fact() -> None:
    assert known_facts({"title": 3, "creator": "B", "artist": "", "rights": None}) == {"author": "B"}
