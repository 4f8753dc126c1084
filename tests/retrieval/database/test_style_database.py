from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from database_samples import DIM, META, facts, unit_vectors, works

from stylesim.core.errors import ConfigError, DataError
from stylesim.retrieval.database import search_route
from stylesim.retrieval.database.style_database import StyleDatabase
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.retrieval.exact_search import search
from stylesim.retrieval.readouts import Csls


def filled(location: str, n: int = 60) -> StyleDatabase:
    database = StyleDatabase.create(location, META, DIM)
    database.add(works(n), facts(n))
    return database


def test_items_are_found_with_their_metadata_after_the_database_is_opened_again(location: str):
    filled(location).close()
    with StyleDatabase.open(location) as database:
        assert len(database) == 60
        assert database.encoder["name"] == "Toy"
        assert database.columns["year"] == "integer"
        assert database.columns["public"] == "boolean"
        found = database.search(works(60).select([7]), 3)
    assert found.ids[0][0] == "w/0007"
    assert found.similarities[0, 0] == pytest.approx(1)
    assert found.exact
    first = found.table(["q"]).iloc[0]
    assert (first["query"], first["rank"], first["tags"], first["period"]) == (
        "q",
        1,
        ["artist:3", "medium:oil"],
        "1900s",
    )
    assert first["year"] == 1897
    assert first["height"] == 7 / 4
    assert not first["public"]


@pytest.mark.parametrize("count", [3, 20])
def test_a_search_gives_the_neighbours_of_exact_search_and_ties_go_to_the_lower_id(location: str, count: int):
    gallery = unit_vectors(50)
    gallery[[9, 30, 41]] = gallery[2]
    queries = np.concatenate([gallery[[2]], unit_vectors(count - 1, seed=1)])
    with StyleDatabase.create(location, META, DIM) as database:
        for rows in (range(30, 50), range(30)):  # not in the order of the ids
            items = item_table((f"g/{i:02d}", [], None, "s", i) for i in rows)
            database.add(DescriptorSet(gallery[list(rows)], items, META))
        found = database.search(queries, 6)
    expected = search(queries, gallery, 6)
    assert found.ids == [[f"g/{i:02d}" for i in row] for row in expected.indices.tolist()]
    assert found.ids[0][:4] == ["g/02", "g/09", "g/30", "g/41"]
    np.testing.assert_array_equal(found.similarities, expected.similarities.numpy())


def test_more_ties_than_the_server_proposes_still_go_to_the_lower_ids(location: str):
    gallery = np.repeat(unit_vectors(1), 300, axis=0)
    items = item_table((f"g/{i:03d}", [], None, "s", i) for i in reversed(range(300)))
    with StyleDatabase.create(location, META, DIM) as database:
        database.add(DescriptorSet(gallery, items, META))
        assert database.search(gallery[:1], 3).ids == [["g/000", "g/001", "g/002"]]


def test_where_restricts_the_neighbours(location: str):
    with filled(location) as database:
        found = database.search(
            unit_vectors(2, seed=5), 50, where="period = '1890s' and year < 1900 and not public = true"
        )
        admitted = facts(60).query("period == '1890s' and year < 1900 and not public")["id"].tolist()
        assert sorted(found.ids[0]) == sorted(found.ids[1]) == admitted
        assert (found.indices[:, len(admitted) :] == -1).all()
        assert np.isneginf(found.similarities[:, len(admitted) :]).all()
        assert database.count("tags contains 'medium:oil'") == 30
        assert database.search(unit_vectors(1), 5, where="year > 3000").ids == [[]]


def test_a_query_does_not_find_itself_if_ids_are_given(location: str):
    queries = works(60).select([3, 4])
    with filled(location) as database:
        found = database.search(queries, 5, query_ids=queries.ids)
        expected = database.search(queries, 6)
    assert found.ids == [ids[1:] for ids in expected.ids]


def test_a_readout_is_fitted_on_the_admitted_items(location: str):
    queries, gallery = unit_vectors(5, seed=3), works(60)
    rows = [i for i in range(60) if i % 3 == 0]
    with filled(location) as database:
        found = database.search(queries, 4, where="period = '1890s'", readout=Csls(3))
    expected = search(*Csls(3)(queries, gallery.descriptors[rows]), 4)
    assert found.ids == [[gallery.ids[rows[i]] for i in row] for row in expected.indices.tolist()]
    np.testing.assert_array_equal(found.similarities, expected.similarities.numpy())


def test_an_empty_database_has_no_neighbours(location: str, tmp_path):
    with StyleDatabase.create(location, META, DIM) as database:
        assert len(database) == 0
        assert database.search(unit_vectors(2), 3).ids == [[], []]
        assert database.search(unit_vectors(2), 3, readout=Csls()).ids == [[], []]
        assert database.optimize() is None
        with pytest.raises(DataError, match="is empty, so there is nothing to export"):
            database.export(tmp_path / "export")


def test_existing_ids_are_refused_skipped_or_replaced(location: str):
    with filled(location, 10) as database:
        with pytest.raises(DataError, match=r"5 of 7 ids are in .* already, such as 'w/0005'"):
            database.add(works(12).select(range(5, 12)))
        assert len(database) == 10
        assert database.add(works(12).select(range(5, 12)), existing="skip") == 2
        assert database.items(["w/0005"])["year"].tolist() == [1895]  # untouched
        assert database.add(works(12, seed=9).select([5]), facts(12).assign(year=1), existing="replace") == 1
        assert len(database) == 12
        assert database.items(["w/0005"])["year"].tolist() == [1]
        assert database.search(works(12, seed=9).select([5]), 1).ids == [["w/0005"]]
        with pytest.raises(ConfigError, match="existing must be"):
            database.add(works(1), existing="ignore")  # type: ignore[arg-type]


def test_update_changes_the_named_columns_only(location: str):
    changes = pd.DataFrame({"id": ["w/0002", "w/0001"], "period": [None, "it's"], "rating": [0.5, 2.0]})
    with filled(location, 5) as database:
        before = database.search(works(5), 5)
        assert database.update(changes) == 2
        items = database.items(["w/0000", "w/0001", "w/0002"])
        assert items["period"].tolist() == ["1890s", "it's", None]
        assert items["rating"].tolist() == [None, 2.0, 0.5]
        assert items["year"].tolist() == [1890, 1891, 1892]
        np.testing.assert_array_equal(database.search(works(5), 5).similarities, before.similarities)
        with pytest.raises(DataError, match=r"1 ids are not in .*, such as 'w/0099'"):
            database.update(pd.DataFrame({"id": ["w/0001", "w/0099"], "year": [1, 1]}))
        with pytest.raises(DataError, match=r"several rows for 1 id\(s\), the first being 'w/0001'"):
            database.update(pd.DataFrame({"id": ["w/0001", "w/0001"], "year": [1, 1]}))


def test_items_are_deleted_by_id_or_by_filter(location: str):
    with filled(location) as database:
        assert database.delete(["w/0003", "w/0003x"]) == 1
        assert database.delete(where="year >= 1900") == 30
        assert len(database) == 29
        assert database.existing(["w/0003", "w/0004"]) == {"w/0004"}
        for options in ({}, {"ids": ["w/0001"], "where": "year = 1"}):
            with pytest.raises(ConfigError, match="either ids or where"):
                database.delete(**options)
        assert database.delete([]) == 0
        assert len(database) == 29


def test_export_and_add_give_the_same_database(location: str, tmp_path):
    with filled(location) as database:
        exported = database.export(tmp_path / "set", where="public = true")
        expected = database.search(works(60), 10, where="public = true")
        items = database.items(exported.ids)
    assert exported.ids == [f"w/{i:04d}" for i in range(0, 60, 2)]
    np.testing.assert_array_equal(exported.descriptors, works(60).descriptors[::2])
    assert exported.meta["encoder_digest"] == META["encoder_digest"]
    with StyleDatabase.create(tmp_path / "copy.db", exported.meta, DIM) as copy:
        copy.add(DescriptorSet.load(tmp_path / "set"), pd.read_parquet(tmp_path / "set" / "metadata.parquet"))
        assert copy.items(exported.ids).equals(items)
        assert copy.search(works(60), 10).ids == expected.ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_digest": "f" * 16}, "digest f{16} instead of 0123456789abcdef"),
        ({"greyscale": True}, "greyscale True instead of False"),
        ({"encoder": {**META["encoder"], "name": "Other"}}, "name Other instead of Toy"),
        ({"encoder": {**META["encoder"], "preprocessing": {"size": 48}}}, "preprocessing.size 48 instead of 32"),
        ({"encoder": {**META["encoder"], "weights": "x"}, "encoder_digest": None}, "weights x instead of random"),
        ({"encoder": {}}, "name unknown instead of Toy"),
    ],
)
def test_descriptors_of_another_encoder_are_refused(folder: str, change: dict, message: str):
    other = DescriptorSet(unit_vectors(2), works(2).items, META | change)
    with filled(folder, 5) as database:
        for use in (database.add, lambda queries: database.search(queries, 1)):
            with pytest.raises(DataError, match=message):
                use(other)
        # The same encoder whose digest was not computed, and a set that a newer version describes in more words.
        same = META | {"encoder_digest": None, "encoder": META["encoder"] | {"trained_on": "x"}, "precision": "bf16"}
        assert database.search(DescriptorSet(unit_vectors(1), works(1).items, same), 1).ids == [["w/0000"]]


def test_descriptors_without_a_direction_or_of_another_length_are_refused(location: str):
    with filled(location, 5) as database:
        for poison, message in ((np.nan, "NaN, infinite or zero: w/0001"), (0.0, "zero: w/0001"), (2.0, "unit length")):
            bad = works(8).descriptors.copy()
            bad[1] = poison
            with pytest.raises(DataError, match=message):
                database.add(DescriptorSet(bad, works(8).items, META), existing="replace")
            with pytest.raises(DataError, match=r"query 1|unit length"):
                database.search(bad, 1)
        with pytest.raises(DataError, match=r"shape \[q 8\], got \[2, 9\]"):
            database.search(unit_vectors(2, dim=9), 1)
        with pytest.raises(ConfigError, match="k must be at least 1, got 0"):
            database.search(unit_vectors(2), 0)
        assert len(database) == 5


HOSTILE_IDS = [
    "'; DROP TABLE items; --",
    "a' OR '1'='1",
    'double "quotes" and \\back\\slashes',
    "new\nline\tand \r controls \x01",
    "%s %(id)s {id} ${id} `id`",
    "../../etc/passwd",
    "émigré 🎨 \u202e rtl",
    "é",  # not the same as the composed é
    "null",
    " ",
    "x" * 2000,
]


def test_hostile_ids_and_values_come_back_unchanged(location: str):
    items = item_table((id, [id, "artist:o'neill"], id, id, i) for i, id in enumerate(HOSTILE_IDS))
    made = DescriptorSet(unit_vectors(len(items)), items, META)
    metadata = pd.DataFrame({"id": HOSTILE_IDS, "period": HOSTILE_IDS, "note": HOSTILE_IDS})
    with StyleDatabase.create(location, META, DIM) as database:
        assert database.add(made, metadata) == len(HOSTILE_IDS)
        assert database.add(made, existing="skip") == 0
        stored = database.items(HOSTILE_IDS)
        assert stored[["id", "period", "note", "content"]].to_numpy().tolist() == [[id] * 4 for id in HOSTILE_IDS]
        assert stored["tags"].tolist() == [[id, "artist:o'neill"] for id in HOSTILE_IDS]
        for id in HOSTILE_IDS:
            quoted = id.replace("'", "''")
            for where in (f"id = '{quoted}'", f"note in ('{quoted}', 'x')", f"tags contains '{quoted}'"):
                assert database.search(made, 2, where=where).ids == [[id]] * len(HOSTILE_IDS)
        for count, id in enumerate(HOSTILE_IDS, start=1):
            assert database.delete([id]) == 1
            assert len(database) == len(HOSTILE_IDS) - count


@pytest.mark.parametrize("id", ["", "x" * 2001, "nul\0", "half \ud83d"])
def test_ids_that_cannot_be_stored_are_refused(location: str, id: str):
    made = DescriptorSet(unit_vectors(1), item_table([(id, [], None, "s", 0)]), META)
    with StyleDatabase.create(location, META, DIM) as database:
        with pytest.raises(DataError, match="id"):
            database.add(made)
        with pytest.raises(DataError, match="id"):
            database.delete([id])
        assert len(database) == 0


@pytest.mark.parametrize(
    "name",
    ['x"; DROP TABLE items; --', "x'y", "Year", "descriptor", "select ", "_distance", "and", "", "ünit", "x" * 64],
)
def test_hostile_column_names_are_refused(location: str, name: str):
    with StyleDatabase.create(location, META, DIM) as database:
        with pytest.raises(DataError, match="A column cannot be called"):
            database.add(works(2), pd.DataFrame({"id": works(2).ids, name: [1, 2]}))
        assert len(database) == 0


def test_words_of_sql_can_be_column_names(location: str):
    names = ["select", "order", "table", "user", "group", "limit", "distance", "true_north"]
    metadata = pd.DataFrame({"id": works(3).ids, **{name: [1, 2, 3] for name in names}})
    with StyleDatabase.create(location, META, DIM) as database:
        database.add(works(3), metadata)
        for name in names:
            assert database.search(works(3), 3, where=f"{name} >= 3").ids == [["w/0002"]] * 3


def test_values_of_another_kind_than_their_column_are_refused(location: str):
    def added(database: StyleDatabase, **columns: list) -> None:
        database.add(works(7).select([5, 6]), pd.DataFrame({"id": ["w/0005", "w/0006"], **columns}))

    with filled(location, 5) as database:
        with pytest.raises(DataError, match="column year holds integer, but 'w/0006' has 'circa 1900'"):
            added(database, year=[1900, "circa 1900"])
        with pytest.raises(DataError, match=r"values of the type\(s\) dict, int"):
            added(database, extra=[1, {}])
        with pytest.raises(DataError, match="column year holds integer"):
            added(database, year=[1900, 2**63])
        assert len(database) == 5
        added(database, year=[1900.0, np.nan], height=[1, 2], period=[1890, None])  # numbers that fit
        stored = database.items(["w/0005", "w/0006"])
        assert stored["year"].tolist() == [1900, None]
        assert stored["height"].tolist() == [1.0, 2.0]
        assert stored["period"].tolist() == ["1890", None]


def test_thumbnails_are_read_on_request_only(location: str):
    thumbnails = pd.DataFrame({"id": ["w/0000", "w/0001"], "thumbnail": [b"\0\xff webp", None]})
    with StyleDatabase.create(location, META, DIM) as database:
        database.add(works(2), thumbnails)
        assert "thumbnail" not in database.search(works(2), 1).items
        assert database.items(["w/0000", "w/0001"], ["thumbnail"])["thumbnail"].tolist() == [b"\0\xff webp", None]
        assert database.count("thumbnail is not null") == 1


@pytest.mark.slow
def test_an_index_is_built_on_request_and_its_recall_is_stored(location: str):
    made = works(600)
    with StyleDatabase.create(location, META, DIM) as database:
        database.add(made, facts(600))
        with pytest.raises(DataError, match="has no index"):
            database.search(made, 5, exact=False)
        assert database.optimize() is None
        index = database.optimize(exact_below=500)
        assert index is not None
        assert index["rows"] == 600
        assert index["recall@10"] >= 0.9
    with StyleDatabase.open(location) as database:
        assert database.index == index
        exact = database.search(made, 10)
        found = database.search(made, 10, exact=False)
        assert exact.exact
        assert not found.exact
        hits = [len(set(a) & set(b)) for a, b in zip(found.ids, exact.ids, strict=True)]
        assert np.mean(hits) / 10 > 0.9
        filtered = database.search(made.select(range(20)), 5, where="year = 1893", exact=False)
        assert {id for ids in filtered.ids for id in ids} <= {f"w/{i:04d}" for i in range(3, 600, 20)}
        assert min(map(len, filtered.ids)) == 5
        # Items that are added after the index was built are found as well.
        database.add(DescriptorSet(-made.descriptors[:1], item_table([("new", [], None, "s", 0)]), META))
        assert database.search(-made.descriptors[:1], 1, exact=False).ids == [["new"]]


def test_the_index_is_used_by_default_where_many_items_are_compared(folder: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search_route, "EXACT_BELOW", 50)
    monkeypatch.setattr(search_route, "EXACT_FILTERED_BELOW", 20)
    with filled(folder, 60) as database:
        assert database.search(unit_vectors(1), 3).exact  # there is no index
        database.optimize(exact_below=50)
        assert not database.search(unit_vectors(1), 3).exact
        assert not database.search(unit_vectors(1), 3, where="public = true").exact
        assert database.search(unit_vectors(1), 3, where="year = 1890").exact  # three items
        assert database.search(unit_vectors(1), 3, exact=True).exact
        database.delete(where="public = true")
        assert database.search(unit_vectors(1), 3).exact


def test_creating_twice_and_opening_what_does_not_exist_are_refused(location: str):
    with pytest.raises(DataError, match="is not a style database"):
        StyleDatabase.open(location)
    StyleDatabase.create(location, META, DIM).close()
    with pytest.raises(DataError, match="already exists"):
        StyleDatabase.create(location, META, DIM)
