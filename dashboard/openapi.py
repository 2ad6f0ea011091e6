"""What FastAPI cannot see by itself for `/openapi.json`: how to sign in, and what our errors look like."""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dashboard.problems import Problem


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
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]  # FastAPI's documented way
