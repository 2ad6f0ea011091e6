"""What FastAPI cannot see by itself for `/openapi.json`: how to sign in, what our errors look like, and examples."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dashboard import examples
from dashboard.access import NEEDS
from dashboard.problems import MEDIA_TYPE, Problem, documented
from farm.auth import Scope


def describe(app: FastAPI) -> None:
    """Completes the app's description, which is made when it is first asked for."""

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
            # Routes that say nothing about 422 get FastAPI's own shape by default, which we never send.
            text = json.dumps(made).replace(
                "#/components/schemas/HTTPValidationError", "#/components/schemas/Problem"
            )
            made = json.loads(text)
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs", {})
            schemas["Problem"] = problem
            made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"token": []}]
            for path, routes in made["paths"].items():
                if path == "/healthz" or path.startswith("/join/"):
                    for route in routes.values():
                        route["security"] = []
                for method, route in routes.items():
                    _say_what_it_needs(route, NEEDS.get((method.upper(), path)))
                    _say_how_it_refuses(route)
                    _give_examples(route, (method.upper(), path))
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]  # FastAPI's documented way


def _say_what_it_needs(route: dict[str, Any], need: Scope | None) -> None:
    if need is None:
        return
    route["description"] = f"{route.get('description', '')}\n\nNeeds the scope `{need}`.".strip()
    if need is not Scope.READ:
        route["responses"] |= {str(status): said for status, said in documented(403).items()}


def _say_how_it_refuses(route: dict[str, Any]) -> None:
    """A body that is no JSON or no form is refused with 400 before any handler sees it; each refusal is a problem, not plain JSON."""
    if "requestBody" in route:
        route["responses"].setdefault("400", documented(400)[400])
    if "422" in route["responses"]:
        route["responses"]["422"] = documented(422)[422]


def _give_examples(route: dict[str, Any], name: examples.Route) -> None:
    """Puts in those that there are; a test holds that none is missing. What a route has said itself stays."""
    named = examples.PARAMETERS | examples.PARAMETERS_OF.get(name, {})
    for parameter in route.get("parameters", ()):
        if parameter["name"] in named:
            parameter.setdefault("example", named[parameter["name"]])
    if name in examples.BODIES:
        for content in route["requestBody"]["content"].values():
            content.setdefault("example", examples.BODIES[name])
    for status, answer in route["responses"].items():
        for media_type, content in answer.get("content", {}).items():
            if media_type == MEDIA_TYPE:
                # A copy: `documented` gives one and the same to all statuses of a route.
                answer["content"] = {MEDIA_TYPE: content | {"example": examples.problem(int(status))}}
            elif name in examples.answers_of():
                content.setdefault("example", examples.answers_of()[name])
            elif (found := _by_schema(content.get("schema", {}))) is not None:
                content.setdefault("example", found)


def _by_schema(schema: dict[str, Any]) -> Any:
    """An example of a named schema or of a list of one; None where there is none."""
    if schema.get("type") == "array":
        one = _by_schema(schema["items"])
        return None if one is None else [one]
    return examples.answers().get(schema.get("$ref", "").rpartition("/")[2])
