"""The API held to its own description: whatever is sent, no 5xx, and only the statuses that are written there."""

import io
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dashboard.access import NEEDS
from farm.auth import Scope, TokenKind, new_token
from farm.model import Card, CardKind, Node
from tests import plain_http
from tests.integration.dashboard_server import RunningDashboard, running_dashboard

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
FEW = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
KNOWN = {"node_id": "n1", "card_id": "CPU-n1", "batch_id": "some"}


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path_factory.mktemp("described")) as running:
        card = Card(id="CPU-n1", node_id="n1", kind=CardKind.CPU, name="CPU", models=frozenset({"animatic"}))
        running.registry.see_node(Node("n1", "attic", "127.0.0.1"), [card], 1.0)
        yield running


@pytest.fixture(scope="module")
def known(farm: RunningDashboard) -> dict[str, str]:
    """Ids of things that are there: made-up ones lead no further than 404."""
    data = io.BytesIO()
    Image.new("RGB", (64, 64), "navy").save(data, "PNG")
    made = plain_http.post(
        f"{farm.base_url}/api/v1/jobs",
        headers=farm.headers,
        files={"image": data.getvalue()},
        data={"settings": '{"preset": "draft"}', "batch": "some"},
    )
    assert made.status_code == 201, made.text
    spare = new_token()
    farm.registry.add_token(spare, TokenKind.API, "spare", 1.0, scope=Scope.READ)
    token = farm.reader.token(spare)
    assert token is not None
    return {**KNOWN, "job_id": made.json()["id"], "token_id": token.id}


@pytest.fixture(scope="module")
def described(farm: RunningDashboard) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{farm.base_url}/openapi.json", headers=farm.headers)


ROUTES = [
    (method, path)
    for method, path in NEEDS
    if path.startswith(("/api/", "/join/", "/healthz", "/readyz", "/metrics"))
    and not path.endswith("/events")  # a stream has no end
]


# Not schemathesis' own parametrize: it reaches into pytest's insides, which the newest pytest has no more.
@pytest.mark.parametrize(("method", "path"), ROUTES, ids=[" ".join(route) for route in ROUTES])
def test_whatever_is_sent_is_answered_as_described(
    method: str,
    path: str,
    farm: RunningDashboard,
    known: dict[str, str],
    described: schemathesis.BaseSchema,
) -> None:
    operation = described[path][method]
    as_told = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    otherwise = operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)

    @FEW
    @given(case=st.one_of(as_told, otherwise))
    def holds(case: schemathesis.Case) -> None:
        case.call_and_validate(headers=farm.headers, checks=list(CHECKS))
        there = {name: known[name] for name in case.path_parameters or {} if name in known}
        if there:
            case.path_parameters = {**case.path_parameters, **there}
            case.call_and_validate(headers=farm.headers, checks=list(CHECKS))

    holds()
