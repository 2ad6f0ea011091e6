"""From an upload to a stored job: everything is checked before anything is stored."""

import hashlib
import json
from dataclasses import dataclass

from dashboard.parts import Parts
from dashboard.views import default_preset
from farm.images import read_picture
from farm.model import Job
from farm.store.requests import NewJob
from farm.submit import parse_settings


@dataclass(frozen=True, slots=True)
class Upload:
    """What arrived. `seed` is taken where the settings name none; `by` is whose token it came with."""

    picture: bytes
    settings: str
    seed: int
    by: str
    idempotency_key: str | None = None


def take_in(farm: Parts, upload: Upload) -> tuple[Job, bool]:
    """Stores the picture and then the job; says whether the job is new. Blocks: for a thread of `farm.intake`.

    The work is the same however long the queue is.

    Raises:
        BadInputError: something is wrong with the picture or a setting; nothing was stored.
        KeyReusedError: the idempotency key belongs to another request. No job was stored.
        FarmError: the disk refuses.
    """
    submission = parse_settings(
        upload.settings,
        models=farm.models,
        presets=farm.presets,
        default_preset=default_preset(farm),
        random_seed=upload.seed,
    )
    picture = read_picture(upload.picture)
    new = NewJob(
        settings=submission.settings,
        tier=submission.tier,
        draft=farm.models[submission.settings.model].draft,
        picture=farm.artifacts.put(picture.data, picture.media_type),
        preset=submission.preset,
        priority=submission.priority,
        anywhere=submission.anywhere,
        submitted_by=upload.by,
        idempotency_key=upload.idempotency_key,
        request_sha256=_fingerprint(upload) if upload.idempotency_key else None,
    )
    return farm.requests.submit(new, farm.now())


def _fingerprint(upload: Upload) -> str:
    """What tells one request from another: the bytes of the picture and the settings that were named."""
    settings = json.dumps(json.loads(upload.settings.strip() or "{}"), sort_keys=True)
    return hashlib.sha256(hashlib.sha256(upload.picture).digest() + settings.encode()).hexdigest()
