from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from database_samples import META, unit_vectors
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stylesim.retrieval.database.style_database import StyleDatabase
from stylesim.retrieval.descriptor_set import DescriptorSet, item_table
from stylesim.retrieval.readouts import Csls, Whitened

N, WIDE = 400, 48
TEXTS = ["1890s", "it's", "50%", "a_b", "back\\slash", "ÉTÉ", "été", "z", "", "🎨"]


def collection() -> tuple[DescriptorSet, pd.DataFrame]:
    """Works with duplicates, near-duplicates, missing values and awkward texts."""
    rng = np.random.default_rng(7)
    x = unit_vectors(N, WIDE)
    x[100:150] = x[:50]
    x[150:200] = x[:50] + rng.normal(0, 1e-7, (50, WIDE)).astype(np.float32)
    ids = [f"{TEXTS[i % len(TEXTS)]}/{i}" for i in rng.permutation(N)]
    tags = [[TEXTS[j] for j in rng.permutation(len(TEXTS))[: i % 4]] for i in range(N)]
    items = item_table((id, tags[i], None, "s", i) for i, id in enumerate(ids))
    metadata = pd.DataFrame(
        {
            "id": ids,
            "period": [None if i % 7 == 0 else TEXTS[i % len(TEXTS)] for i in range(N)],
            "year": [None if i % 5 == 0 else int(i % 11) - 5 for i in range(N)],
            "height": [None if i % 6 == 0 else (i % 9) / 4 for i in range(N)],
            "public": [None if i % 4 == 0 else i % 3 == 0 for i in range(N)],
        }
    )
    return DescriptorSet(x, items, META), metadata


@pytest.fixture(scope="module")
def pair(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[StyleDatabase]]:
    """The same works in a folder and on a server, added in different orders and pieces."""
    works, metadata = collection()
    databases = []
    for location, order in ((tmp_path_factory.mktemp("db") / "works.db", 1), (f"{postgres_url}#agree", -1)):
        database = StyleDatabase.create(location, META, WIDE)
        rows = np.arange(N)[::order]
        for part in (rows[:130], rows[130:]):
            database.add(works.select(part), metadata)
        databases.append(database)
    yield databases
    for database in databases:
        database.close()


@pytest.mark.parametrize("count", [2, 60])
@pytest.mark.parametrize("where", [None, "period <= 'b' and not public = true or tags contains 'it''s'"])
@pytest.mark.parametrize("readout", [None, Csls(5), Whitened(8)])
def test_exact_searches_give_the_same_answers_to_the_last_bit(pair: list[StyleDatabase], count: int, where, readout):
    works, _ = collection()
    queries = works.select(range(100, 100 + count))
    one, other = (
        database.search(queries, 12, where=where, readout=readout, query_ids=queries.ids) for database in pair
    )
    assert one.ids == other.ids
    np.testing.assert_array_equal(one.similarities, other.similarities)
    pd.testing.assert_frame_equal(one.table(queries.ids), other.table(queries.ids))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


texts = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
patterns = st.text(st.sampled_from("1890s%_it'ÉÉé5zab/"), max_size=5) | st.sampled_from(["back\\\\%", "50\\%", "a\\_b"])
orders = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])
numbers = st.integers(-6, 6).map(str) | st.sampled_from(["0.25", "-1.5", "1e3", "99999999999999999999"])
predicates = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(["period", "id", "content"]), orders, texts.map(quoted)),
    st.builds("{} {} {}".format, st.sampled_from(["year", "height"]), orders, numbers),
    st.builds("public {} {}".format, st.sampled_from(["=", "<>"]), st.sampled_from(["true", "false"])),
    st.builds("period {} {}".format, st.sampled_from(["like", "not like"]), patterns.map(quoted)),
    st.builds("period in ({})".format, st.lists(texts.map(quoted), min_size=1, max_size=3).map(", ".join)),
    st.builds("year not in ({})".format, st.lists(numbers, min_size=1, max_size=3).map(", ".join)),
    st.builds("height between {} and {}".format, numbers, numbers),
    st.builds("tags contains {}".format, texts.map(quoted)),
    st.builds(
        "{} is {}".format,
        st.sampled_from(["period", "year", "tags", "thumbnail"]),
        st.sampled_from(["null", "not null"]),
    ),
)
filters = st.recursive(
    predicates,
    lambda inner: st.one_of(
        st.builds("not ({})".format, inner),
        st.builds("({}) {} ({})".format, inner, st.sampled_from(["and", "or"]), inner),
    ),
    max_leaves=5,
)


@pytest.mark.slow
@settings(max_examples=200)
@given(where=filters)
@example(where="not (period in ('1890s') and period in ('it''s'))")  # LanceDB takes the inner part for false
@example(where="year not in (1) or year not in (2)")
def test_a_filter_admits_the_same_items(pair: list[StyleDatabase], where: str):
    one, other = (
        {id for piece in db._backend.scan(["id"], db._condition(where)) for id in piece["id"].to_pylist()}
        for db in pair
    )
    assert one == other


@pytest.mark.parametrize(
    ("where", "admitted"),
    [
        ("period = 'it''s'", lambda row: row["period"] == "it's"),
        ("period like '50\\%'", lambda row: row["period"] == "50%"),
        ("period like 'a_b'", lambda row: row["period"] == "a_b"),
        ("period like 'a\\_b'", lambda row: row["period"] == "a_b"),
        ("period like 'back\\\\%'", lambda row: row["period"] == "back\\slash"),
        ("period < 'a'", lambda row: isinstance(row["period"], str) and row["period"] < "a"),
        ("not year > 0", lambda row: row["year"] == row["year"] and row["year"] <= 0),
        ("year between -1 and 1.5", lambda row: row["year"] in (-1, 0, 1)),
        ("year is null or public = false", lambda row: row["year"] != row["year"] or row["public"] is False),
        ("height in (0.25, 2)", lambda row: row["height"] in (0.25, 2)),
    ],
)
def test_a_filter_admits_what_sql_says(pair: list[StyleDatabase], where: str, admitted):
    _, metadata = collection()
    expected = sum(bool(admitted(row)) for row in metadata.to_dict("records"))
    assert expected > 0
    assert [database.count(where) for database in pair] == [expected, expected]
