"""Schemas: their JSON form, their digest, and what they refuse."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.payloads import KINDS, ROLES, Column, Schema, SchemaError

columns = st.builds(
    Column,
    name=st.text(min_size=1, max_size=20),
    kind=st.sampled_from(KINDS),
    role=st.sampled_from(ROLES),
    categories=st.none() | st.lists(st.text(max_size=5), min_size=1, max_size=4).map(tuple),
)
schemas = st.lists(columns, max_size=8, unique_by=lambda column: column.name).map(
    lambda items: Schema(columns=tuple(items))
)


@given(schemas)
def test_json_form_reads_back_as_the_same_schema(schema: Schema) -> None:
    assert Schema.from_json(schema.to_json()) == schema


@given(schemas, schemas)
def test_digests_are_equal_exactly_when_schemas_are(one: Schema, other: Schema) -> None:
    assert (one.digest == other.digest) == (one == other)


def test_a_name_may_stand_among_features_and_among_outputs() -> None:
    schema = Schema(
        columns=(
            Column(name="price", kind="numeric"),
            Column(name="price", kind="numeric", role="output"),
        )
    )

    assert [column.role for column in schema.columns] == ["feature", "output"]


def test_a_name_that_stands_twice_among_features_is_refused() -> None:
    with pytest.raises(SchemaError) as caught:
        Schema(columns=(Column(name="a", kind="text"), Column(name="a", kind="numeric")))

    assert caught.value.got == "a"


@pytest.mark.parametrize(
    ("value", "path"),
    [
        pytest.param([], "schema", id="list"),
        pytest.param({"columns": {}}, "schema", id="columns-object"),
        pytest.param({"columns": [{"kind": "numeric"}]}, "columns[0]", id="no-name"),
        pytest.param({"columns": [{"name": "a", "kind": "number"}]}, "columns.a.kind", id="kind"),
        pytest.param({"columns": [{"name": "a", "role": "x"}]}, "columns.a.role", id="role"),
        pytest.param({"columns": [{"name": "a", "type": "x"}]}, "columns[0]", id="unknown-key"),
        pytest.param(
            {"columns": [{"name": "a", "categories": "x"}]}, "columns[0].categories", id="text"
        ),
    ],
)
def test_what_is_no_schema_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Schema.from_json(value)

    assert caught.value.path == path
