"""An example of every parameter, body and answer in the API's description, all of one small farm: `dashboard.examples.names`.

The answers are values of the types that the handlers give, so a type that changes takes its example along or fails to be built.
"""

from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter

from dashboard.api.health import Health, Readiness
from dashboard.examples import jobs, machines, names
from dashboard.views import model_view, preset_view
from farm.answers.keeping import RetentionView, SettingView
from farm.catalogue.models import load_models
from farm.catalogue.presets import presets

Route = tuple[str, str]
"""Method and path."""

PARAMETERS: dict[str, Any] = {
    "batch": names.BATCH,
    "batch_id": names.BATCH,
    "card": names.CARD_ID,
    "card_id": names.CARD_ID,
    "cursor": 41,
    "download": True,
    "ended_since": names.SUBMITTED_AT,
    "format": "gif",
    "idempotency-key": "waves-1",
    "job_id": names.JOB_ID,
    "keep_days": 30,
    "keep_gb": 200,
    "Last-Event-ID": "7f3a-1206",
    "limit": 20,
    "loop": 0,
    "model": names.MODEL,
    "name": names.MODEL,
    "node_id": names.NODE_ID,
    "of": "input",
    "path": names.WEIGHTS_FILE,
    "q": "waves",
    "sha256": names.WEIGHTS_SHA256,
    "sort": "ended",
    "status": "finished",
    "token_id": names.LAPTOP_ID,
    "window": "24h",
}
"""By name: a name means the same in every operation, but for those of `PARAMETERS_OF`."""
PARAMETERS_OF: dict[Route, dict[str, Any]] = {("GET", "/join/lock/{name}"): {"name": "gpu.txt"}}

_VERSIONS = {
    "name": names.NODE,
    "ray_version": names.RAY_VERSION,
    "python_version": names.PYTHON_VERSION,
    "farm_version": names.FARM_VERSION,
}
_SETTINGS = f'{{"preset": "{names.PRESET}", "prompt": "{names.PROMPT}"}}'
BODIES: dict[Route, Any] = {
    ("POST", "/api/v1/jobs"): {"image": "waves.jpg", "settings": _SETTINGS, "batch": names.BATCH},
    ("POST", "/api/v1/batches"): {"image": ["waves.jpg"], "settings": _SETTINGS, "batch": names.BATCH},
    ("POST", "/api/v1/jobs/{job_id}/priority"): {"priority": 10},
    ("POST", "/api/v1/jobs/{job_id}/rating"): {"rating": 4},
    ("POST", "/api/v1/jobs/{job_id}/star"): {"starred": True},
    ("POST", "/api/v1/nodes/hello"): _VERSIONS,
    ("POST", "/join/redeem"): {**_VERSIONS, "code": names.CODE},
    ("POST", "/api/v1/nodes/reach"): {
        "address": names.ADDRESS,
        "ports": [10002, 10003],
        "first_port": 10002,
    },
    ("POST", "/api/v1/plan"): {"preset": names.PRESET, "steps": 50},
    ("POST", "/api/v1/tokens"): {"kind": "join", "minutes": 60},
    ("PATCH", "/api/v1/settings"): {"keep_days": 30, "keep_gb": None},
}
"""A form's files are told by their names."""

_PROBLEMS = {
    400: ("There was an error parsing the body", ""),
    401: ("A token is needed.", "Send it as `Authorization: Bearer TOKEN`."),
    403: ("The token has the scope read; this needs submit.", "Ask the farm's admin."),
    404: (f"There is no job {names.JOB_ID}.", "`farm jobs` lists the jobs there are."),
    409: (f"Job {names.JOB_ID} is finished already; there is nothing to cancel.", ""),
    413: ("The upload is larger than 64 MiB, the most that this farm takes here.", "Scale the picture down."),
    416: ("The range begins behind the end of the file.", "Ask for bytes that it has."),
    422: ("Frames must be between 1 and 64 for i2vgen-xl, not 99.", ""),
    503: ("The farm's database cannot be read.", "Look at the dashboard's log and at the disk."),
}


def problem(status: int) -> dict[str, Any]:
    """An error as the API tells it."""
    detail, remedy = _PROBLEMS[status]
    errors = [{"field": "settings.frames", "message": detail, "remedy": remedy}] if status == 422 else []
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "remedy": remedy,
        "errors": errors,
    }


@cache
def answers() -> dict[str, Any]:
    """What a successful answer of a schema is, as JSON, by the schema's name."""
    models = load_models()
    limit = SettingView(
        name="keep_days",
        value=30.0,
        default=None,
        source="page",
        variable="FARM_KEEP_DAYS",
        changed_at=names.JOINED_AT,
        changed_by=names.PERSON,
    )
    found = {
        "BatchView": jobs.BATCH,
        "BenchView": machines.BENCH,
        "CalibrationView": machines.CALIBRATION,
        "CardView": machines.CARD,
        "FarmFacts": machines.FACTS,
        "Health": Health(),
        "JobPage": jobs.PAGE,
        "JobView": jobs.FINISHED,
        "JoinTicket": machines.TICKET,
        "Manifest": machines.MANIFEST,
        "ModelView": model_view(models[names.MODEL], names.WEIGHTS_BYTES),
        "NodeView": machines.NODE,
        "PresetView": preset_view(presets()[names.PRESET], models[names.MODEL]),
        "Reach": machines.REACH,
        "Readiness": Readiness(database=True, scheduler=True),
        "RetentionView": RetentionView(jobs=12, bytes=48_000_000),
        "SettingView": limit,
        "Throughput": machines.THROUGHPUT,
        "TokenView": machines.TOKEN,
        "WeightsOffer": machines.OFFER,
    }
    return {name: as_json(value) for name, value in found.items()}


@cache
def answers_of() -> dict[Route, Any]:
    """The answers, as JSON or text, of operations that leave a thing in another state than `answers` shows it, or that answer text."""
    found = {
        ("POST", "/api/v1/jobs"): jobs.QUEUED,
        ("POST", "/api/v1/jobs/{job_id}/cancel"): jobs.CANCELLING,
        ("POST", "/api/v1/jobs/{job_id}/retry"): jobs.QUEUED,
        ("POST", "/api/v1/jobs/{job_id}/priority"): jobs.MOVED,
        ("POST", "/api/v1/batches"): jobs.NEW_BATCH,
        ("GET", "/api/v1/jobs/{job_id}/log"): jobs.LOG,
        ("GET", "/api/v1/events"): jobs.EVENTS,
        ("GET", "/api/v1/jobs/{job_id}/events"): jobs.EVENTS,
        ("GET", "/api/v1/cards/{card_id}/telemetry"): machines.TELEMETRY,
        ("POST", "/api/v1/nodes/{node_id}/drain"): machines.DRAINED,
        ("DELETE", "/api/v1/nodes/{node_id}"): machines.SILENT,
        ("POST", "/api/v1/nodes/hello"): machines.COMING_BACK,
    }
    return {route: as_json(value) for route, value in found.items()}


def as_json(value: object) -> Any:
    """A model, dataclass or list of them as what its JSON says."""
    return TypeAdapter[Any](type(value)).dump_python(value, mode="json")
