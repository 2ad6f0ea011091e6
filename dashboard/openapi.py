"""What FastAPI cannot see by itself for `/openapi.json`: how to sign in, and what our errors look like."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dashboard.access import NEEDS
from dashboard.problems import Problem, documented
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
