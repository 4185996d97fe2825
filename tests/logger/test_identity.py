"""Correlation keys and the ids made from them."""

import string
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.logger import Identity, deployment_name, identity, inference_id, kind_of
from sidelight.payloads import Event

identities = st.builds(Identity, *[st.text(max_size=6)] * 5)
URL_SAFE = set(string.ascii_letters + string.digits + "-._~%/")


def event(event_type: str, **extensions: str) -> Event:
    return Event(id="e1", source="/s", type=event_type, extensions=extensions)


def test_kserve_pairs_by_the_id_of_the_event() -> None:
    found = identity(
        event(
            "org.kubeflow.serving.inference.request",
            namespace="prod",
            inferenceservicename="income",
            component="predictor",
            requestid="ignored",
        )
    )

    assert found == Identity("prod", "income", "", "predictor", "e1")


def test_seldon_pairs_by_the_request_id() -> None:
    kind = "io.seldon.serving.inference.response"

    assert identity(event(kind, requestid="r", modelid="clf")).request_id == "r"
    assert identity(event(kind, requestid="r", modelid="clf")).component == "clf"


def test_seldon_without_request_id_pairs_by_the_id_of_the_event() -> None:
    assert identity(event("io.seldon.serving.inference.request")).request_id == "e1"


def test_missing_names_have_a_place() -> None:
    found = identity(event("org.kubeflow.serving.inference.request"))

    assert found.deployment == "default/unknown"


@pytest.mark.parametrize(
    ("event_type", "kind"),
    [
        ("org.kubeflow.serving.inference.request", "request"),
        ("io.seldon.serving.inference.response", "response"),
        ("io.seldon.serving.feedback", "feedback"),
        ("io.sidelight.feedback", "feedback"),
        ("io.seldon.serving.inference.drift", "other"),
    ],
)
def test_kinds_follow_from_the_type(event_type: str, kind: str) -> None:
    assert kind_of(event_type) == kind


@given(identities, identities)
def test_ids_are_equal_exactly_when_identities_are(one: Identity, other: Identity) -> None:
    assert (inference_id(one) == inference_id(other)) == (one == other)


def test_an_id_never_changes() -> None:
    known = inference_id(Identity("prod", "flights", "", "predictor", "17"))

    # BLAKE2b, 16 bytes, over "4:prod7:flights0:9:predictor17": stored rows hold such ids.
    assert known == "433dd66b596cea42a79ab4a96004653f"


@given(st.text(max_size=8), st.text(max_size=8))
def test_deployment_names_can_be_split_and_stand_in_a_url(namespace: str, name: str) -> None:
    whole = deployment_name(namespace, name)

    assert set(whole) <= URL_SAFE
    assert [unquote(part) for part in whole.split("/")] == [namespace, name]


def test_dots_alone_do_not_climb_up_a_path() -> None:
    assert deployment_name("..", ".") == "%2E%2E/%2E"
