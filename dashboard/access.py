"""What each route needs: one table, held by a test to the routes that there are. `dashboard.signin` asks it before a handler runs.

"Their own jobs" cannot be told from a route: `own_job` asks for that where a job is changed.
"""

from starlette.routing import compile_path

from dashboard.parts import Parts
from farm.auth import Credential, Scope
from farm.errors import ForbiddenError
from farm.model import Job

_R, _S, _A = Scope.READ, Scope.SUBMIT, Scope.ADMIN

NEEDS: dict[tuple[str, str], Scope | None] = {
    ("POST", "/api/v1/jobs"): _S,
    ("GET", "/api/v1/jobs"): _R,
    ("GET", "/api/v1/jobs/{job_id}"): _R,
    ("POST", "/api/v1/jobs/{job_id}/cancel"): _S,
    ("POST", "/api/v1/jobs/{job_id}/retry"): _S,
    ("POST", "/api/v1/jobs/{job_id}/priority"): _S,
    ("POST", "/api/v1/jobs/{job_id}/rating"): _S,
    ("POST", "/api/v1/jobs/{job_id}/star"): _S,
    ("GET", "/api/v1/jobs/{job_id}/video"): _R,
    ("GET", "/api/v1/jobs/{job_id}/thumbnail"): _R,
    ("GET", "/api/v1/jobs/{job_id}/preview"): _R,
    ("GET", "/api/v1/jobs/{job_id}/input"): _R,
    ("GET", "/api/v1/jobs/{job_id}/log"): _R,
    ("GET", "/api/v1/jobs/{job_id}/events"): _R,
    ("POST", "/api/v1/batches"): _S,
    ("GET", "/api/v1/batches/{batch_id}"): _R,
    ("GET", "/api/v1/nodes"): _R,
    ("POST", "/api/v1/nodes/{node_id}/drain"): _A,
    ("POST", "/api/v1/nodes/{node_id}/resume"): _A,
    ("DELETE", "/api/v1/nodes/{node_id}"): _A,
    ("GET", "/api/v1/cards"): _R,
    ("GET", "/api/v1/cards/{card_id}/telemetry"): _R,
    ("GET", "/api/v1/cards/{card_id}/history"): _R,
    ("GET", "/api/v1/stats/throughput"): _R,
    ("GET", "/api/v1/stats/calibration"): _R,
    ("GET", "/api/v1/presets"): _R,
    ("GET", "/api/v1/models"): _R,
    ("GET", "/api/v1/benchmarks"): _R,
    ("GET", "/api/v1/events"): _R,
    ("POST", "/api/v1/plan"): _R,
    ("POST", "/api/v1/tokens"): _A,
    ("DELETE", "/api/v1/tokens/{token_id}"): _A,
    ("GET", "/api/v1/settings"): _R,
    ("PATCH", "/api/v1/settings"): _A,
    ("GET", "/api/v1/settings/retention"): _A,
    # A node's own token opens these, and no other door.
    ("POST", "/api/v1/nodes/hello"): None,
    ("POST", "/api/v1/nodes/bye"): None,
    ("POST", "/api/v1/nodes/reach"): None,
    ("GET", "/api/v1/nodes/weights"): None,
    ("GET", "/api/v1/models/{name}/manifest"): None,
    ("GET", "/api/v1/models/{name}/files/{path}"): None,
    # Open to all.
    ("GET", "/join/farm"): None,
    ("GET", "/join/ca.pem"): None,
    ("GET", "/join/install.sh"): None,
    ("GET", "/join/install.ps1"): None,
    ("GET", "/join/wheel"): None,
    ("GET", "/join/lock/{name}"): None,
    ("POST", "/join/redeem"): None,
    ("GET", "/healthz"): None,
    ("GET", "/favicon.ico"): None,
    ("GET", "/signin"): None,
    ("POST", "/signin"): None,
    ("GET", "/readyz"): _R,
    ("GET", "/metrics"): _R,
    ("GET", "/openapi.json"): _R,
    ("POST", "/signout"): _R,
    ("GET", "/submit"): _S,
    ("GET", "/"): _R,
    ("GET", "/jobs"): _R,
    ("GET", "/jobs/{job_id}"): _R,
    ("GET", "/cards"): _R,
    ("GET", "/benchmarks"): _R,
    ("GET", "/settings"): _R,
}
"""By method and path; None where no account's scope counts. What is not here is seen by whoever is signed in (it is a page that says
that there is nothing), and changed by admins only."""

_COMPILED = [(method, compile_path(path)[0], need) for (method, path), need in NEEDS.items() if "{" in path]


def needed(method: str, path: str) -> Scope:
    """What a request needs of whoever is signed in."""
    method = "GET" if method in ("HEAD", "OPTIONS") else method
    if (method, path) in NEEDS:
        return NEEDS[method, path] or Scope.READ
    for known, pattern, need in _COMPILED:
        if known == method and pattern.match(path):
            return need or Scope.READ
    return Scope.READ if method == "GET" else Scope.ADMIN


def demand(me: Credential, need: Scope) -> None:
    """Passes whoever may do what needs `need`.

    Raises:
        ForbiddenError: the scope is too small; says what there is and what is missing.
    """
    if me.may(need):
        return
    has = me.scope or "none"
    whose = f"The account {me.user}" if me.user else f"The token {me.name!r}"
    raise ForbiddenError(
        f"{whose} has the scope {has}; this needs {need}.",
        "Ask the farm's admin: `farm user add` gives a role, `farm token new --scope` a token.",
    )


def own_job(farm: Parts, me: Credential, job_id: str) -> Job:
    """The job, for whoever may change it: who submitted it, and admins.

    Raises:
        NotFoundError: there is none of this id.
        ForbiddenError: it is someone else's.
    """
    job = farm.reader.job(job_id)
    if me.may_control(job.submitted_by):
        return job
    raise ForbiddenError(
        f"Job {job_id} is {job.submitted_by or 'nobody known'}'s; only who submitted it and admins may change it.",
        "Ask them, or the farm's admin.",
    )
