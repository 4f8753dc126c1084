"""Reading every sample of shards in order."""

from __future__ import annotations

from pathlib import Path

from corpus import encoded_image, write_root

from stylesim.data.shards.shard_samples import read_shards


def test_samples_come_in_order_and_are_divided_among_ranks(tmp_path: Path):
    one, two = write_root(tmp_path / "a", 10, size=4), write_root(tmp_path / "b", 5, size=4)
    samples = read_shards([one, two])
    ids = [sample.id for sample in samples]
    assert len(samples) == len(ids) == 15
    assert ids[0] == "a/00000/00000"
    assert ids[-1] == "b/00001/00004"
    shares = [[sample.id for sample in read_shards([one, two], rank, 4)] for rank in range(4)]
    assert shares == [ids[rank::4] for rank in range(4)]
    assert [len(read_shards([one, two], rank, 4)) for rank in range(4)] == [4, 4, 4, 3]
    first = next(iter(samples))
    assert (first.tags, first.content, first.image) == (["set:0"], "c0", encoded_image(0))
    assert next(iter(read_shards(one, images=False))).image is None
