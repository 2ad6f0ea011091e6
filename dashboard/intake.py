"""From an upload to a stored job: everything is checked before anything is stored."""

import hashlib
import json
import re
from dataclasses import dataclass

from dashboard.parts import Parts
from dashboard.views import default_preset
from farm.errors import BadInputError
from farm.images import read_picture
from farm.model import Artifact, Job
from farm.store.requests import NewJob
from farm.submit import parse_settings

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Upload:
    """What arrived. `seed` is taken where the settings name none; `by` is whose token it came with.

    `input_sha256` names a picture as the farm keeps it: without `picture` one that is there already, with it what that must come to.
    """

    picture: bytes | None
    settings: str
    seed: int
    by: str
    idempotency_key: str | None = None
    input_sha256: str | None = None


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
    picture = _picture(farm, upload)
    new = NewJob(
        settings=submission.settings,
        tier=submission.tier,
        draft=farm.models[submission.settings.model].draft,
        picture=picture,
        preset=submission.preset,
        priority=submission.priority,
        anywhere=submission.anywhere,
        submitted_by=upload.by,
        idempotency_key=upload.idempotency_key,
        request_sha256=_fingerprint(upload) if upload.idempotency_key else None,
    )
    return farm.requests.submit(new, farm.now())


def _picture(farm: Parts, upload: Upload) -> Artifact:
    """The stored picture that was sent, or named by its hash."""
    wanted = upload.input_sha256
    if wanted is not None and not _SHA256.fullmatch(wanted):
        raise BadInputError(
            "input_sha256", "The SHA-256 of a picture has 64 hexadecimal digits, in small letters."
        )
    if upload.picture is not None:
        sent = read_picture(upload.picture)
        if wanted not in (None, hashlib.sha256(sent.data).hexdigest()):
            raise BadInputError(
                "input_sha256",
                "The picture that was sent is not the one with this SHA-256.",
                "Send that one, or leave input_sha256 out. It counts as the farm keeps it: upright, sRGB, without metadata.",
            )
        return farm.artifacts.put(sent.data, sent.media_type)
    if wanted is None:
        raise BadInputError("image", "No picture was sent.", "Send a PNG, JPEG or WebP file.")
    # Only a job's picture counts, not any file of the store: what may be seen is decided by jobs.
    media_type = farm.reader.input_media_type(wanted) if farm.artifacts.exists(wanted) else None
    if media_type is None:
        raise BadInputError(
            "input_sha256",
            "The farm has no picture with this SHA-256.",
            "Send the picture itself as `image`.",
        )
    return Artifact(wanted, media_type, farm.artifacts.path(wanted).stat().st_size)


def _fingerprint(upload: Upload) -> str:
    """What tells one request from another: the bytes or the hash of the picture, and the settings that were named."""
    settings = json.dumps(json.loads(upload.settings.strip() or "{}"), sort_keys=True)
    picture = hashlib.sha256(upload.picture or b"").digest()
    return hashlib.sha256(picture + settings.encode() + (upload.input_sha256 or "").encode()).hexdigest()
