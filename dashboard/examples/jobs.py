"""One job in each state in which an operation leaves it, and its batch."""

from dashboard.examples import names
from farm.answers.jobs import (
    AttemptView,
    BatchView,
    EtaView,
    JobPage,
    JobUrls,
    JobView,
    ProgressView,
    StageView,
)
from farm.model import JobStatus, MemoryPlan, RenderSettings, StageKind, Tier
from farm.planning.waiting import waits_for

PLAN = MemoryPlan(parts="by_stage", weights_on_card=0.53, ring_mib=181, piece_mib=1024)

_BASE = f"/api/v1/jobs/{names.JOB_ID}"
_PICTURE = JobUrls(
    thumbnail=f"{_BASE}/thumbnail?of=input",
    input=f"{_BASE}/input",
    log=f"{_BASE}/log",
    page=f"/jobs/{names.JOB_ID}",
)

QUEUED = JobView(
    id=names.JOB_ID,
    status=JobStatus.QUEUED,
    settings=RenderSettings(names.MODEL, 1280, 704, 16, 50, 9.0, 8, 1234, names.PROMPT),
    preset=names.PRESET,
    tier=Tier.QUALITY,
    model=names.MODEL,
    prompt=names.PROMPT,
    submitted_by=names.PERSON,
    input_sha256=names.INPUT_SHA256,
    created_at=names.SUBMITTED_AT,
    position=1,
    eta=EtaView(
        at=names.SUBMITTED_AT + 542, low_at=names.SUBMITTED_AT + 259, high_at=names.SUBMITTED_AT + 1136
    ),
    why_pending=waits_for({"": 1}, names.CARD),
    batch=names.BATCH,
    stages=[StageView(stage=StageKind.GENERATE, status="queued")],
    urls=_PICTURE,
)
"""As it was stored, and as it is again once a person had it tried again."""

MOVED = QUEUED.model_copy(update={"priority": 10})

_TRY = AttemptView(
    id=names.ATTEMPT_ID,
    number=1,
    stage=StageKind.GENERATE,
    node_id=names.NODE_ID,
    card_id=names.CARD_ID,
    card_name=names.CARD,
    status="running",
    memory_plan=PLAN,
    assigned_at=names.ASSIGNED_AT,
    started_at=names.STARTED_AT,
    predicted_s=542.48,
    predicted_gib=4.758,
    predicted_low_s=259.08,
    predicted_high_s=1135.9,
    predicted_basis="catalogue",
)
_RUNNING = QUEUED.model_copy(
    update={
        "status": JobStatus.RUNNING,
        "progress": ProgressView(done=12, total=50, seconds_per_step=8.2, eta_s=341.0, phase="denoise"),
        "position": None,
        "eta": EtaView(
            at=names.STARTED_AT + 470, low_at=names.STARTED_AT + 410, high_at=names.STARTED_AT + 560
        ),
        "why_pending": None,
        "card_id": names.CARD_ID,
        "card_name": names.CARD,
        "attempts": [_TRY],
        "stages": [
            StageView(
                stage=StageKind.GENERATE,
                status="running",
                attempts=1,
                card_id=names.CARD_ID,
                card_name=names.CARD,
            )
        ],
        "urls": _PICTURE.model_copy(update={"preview": f"{_BASE}/preview"}),
    }
)
CANCELLING = _RUNNING.model_copy(update={"cancel_requested": True})

FINISHED = _RUNNING.model_copy(
    update={
        "status": JobStatus.FINISHED,
        "finished_at": names.FINISHED_AT,
        "progress": None,
        "eta": None,
        "rating": 4,
        "starred": True,
        "energy_wh": 18.4,
        "attempts": [
            _TRY.model_copy(
                update={
                    "status": "finished",
                    "finished_at": names.FINISHED_AT,
                    "stage_seconds": {
                        "load": 31.2,
                        "encode_image": 1.9,
                        "denoise": 411.6,
                        "decode": 20.3,
                        "encode": 2.1,
                    },
                    "peak_gib": 4.71,
                    "energy_wh": 18.4,
                }
            )
        ],
        "stages": [
            StageView(
                stage=StageKind.GENERATE,
                status="finished",
                attempts=1,
                card_id=names.CARD_ID,
                card_name=names.CARD,
                seconds=names.FINISHED_AT - names.ASSIGNED_AT,
                sha256=names.CLIP_SHA256,
            )
        ],
        "urls": _PICTURE.model_copy(update={"video": f"{_BASE}/video", "thumbnail": f"{_BASE}/thumbnail"}),
    }
)

PAGE = JobPage(jobs=[FINISHED.model_copy(update={"stages": []})], cursor=41)

BATCH = BatchView(
    id=names.BATCH,
    jobs=1,
    counts={JobStatus.FINISHED: 1},
    created_at=names.SUBMITTED_AT,
    ended=True,
)
NEW_BATCH = BATCH.model_copy(
    update={"counts": {JobStatus.QUEUED: 1}, "ended": False, "job_ids": [names.JOB_ID]}
)

LOG = f"""\
job {names.JOB_ID}  finished
2026-11-20 10:00:00  submitted by {names.PERSON}: {{"preset": "{names.PRESET}", "model": "{names.MODEL}", "width": 1280, "height": 704}}
2026-11-20 10:00:01  [attempt 1 on {names.CARD}]  assigned
2026-11-20 10:00:03  [attempt 1 on {names.CARD}]  rendering
2026-11-20 10:07:52  [attempt 1 on {names.CARD}]  finished
"""
EVENTS = f"""\
id: 7f3a-1207
event: job
data: {{"id":"{names.JOB_ID}","status":"running","done":12,"total":50,"seconds_per_step":8.2,"eta_s":341.0}}

"""
