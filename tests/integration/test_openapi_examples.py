"""Every operation of the API's description shows by example what it takes and gives, and each example is right by its own schema."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dashboard import examples
from dashboard.app import create_app
from dashboard.problems import MEDIA_TYPE
from farm.settings import DataDirectory, FarmSettings
from tests.storage import lay_database


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    data = DataDirectory(tmp_path_factory.mktemp("described"))
    lay_database(data.database)
    return create_app(data, FarmSettings(data=data.root)).openapi()


def shown(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each parameter, body and answer that has a content, with what it is."""
    for path, routes in described["paths"].items():
        for method, route in routes.items():
            operation = f"{method.upper()} {path}"
            for parameter in route.get("parameters", ()):
                yield f"{operation}: parameter {parameter['name']}", parameter
            for content in route.get("requestBody", {}).get("content", {}).values():
                yield f"{operation}: body", content
            for status, answer in route["responses"].items():
                for media_type, content in answer.get("content", {}).items():
                    if media_type in ("application/json", MEDIA_TYPE, "text/event-stream"):
                        yield f"{operation}: {status}", content


def test_everything_has_an_example(described: dict[str, Any]):
    missing = [what for what, place in shown(described) if "example" not in place]
    assert missing == [], "to be added to dashboard/examples"


def test_each_example_is_right_by_its_schema(described: dict[str, Any]):
    wrong = {
        what: [error.message for error in found]
        for what, place in shown(described)
        if (found := list(_schema(described, place).iter_errors(place["example"])))
    }
    assert wrong == {}


def _schema(described: dict[str, Any], place: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({"components": described["components"], **place["schema"]})


def test_no_example_is_of_what_is_not_there(described: dict[str, Any]):
    """An example whose operation or parameter went is deleted with it."""
    routes = {
        (method.upper(), path): route
        for path, of in described["paths"].items()
        for method, route in of.items()
    }
    assert {*examples.BODIES, *examples.answers_of(), *examples.PARAMETERS_OF} <= set(routes)
    named = {parameter["name"] for route in routes.values() for parameter in route.get("parameters", ())}
    assert set(examples.PARAMETERS) <= named
    answered = {
        name for name, example in examples.answers().items()
        for _, place in shown(described)
        if place.get("example") in (example, [example])
    }  # fmt: skip
    assert answered == set(examples.answers())
