"""From an upload to a stored job: everything is checked before anything is stored."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dashboard.parts import Parts
from dashboard.views import default_preset
from farm.errors import BadInputError
from farm.images import Picture, read_picture
from farm.model import Artifact, Job
from farm.store.requests import NewJob
from farm.submit import Submission, parse_settings

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BATCH = re.compile(r"\w[\w .-]{0,79}")


@dataclass(frozen=True, slots=True)
class Upload:
    """What arrived. `seed` is taken where the settings name none; `by` is whose token it came with.

    `input_sha256` names a picture as the farm keeps it: without `picture` one that is there already, with it what that must come to.
    `batch` names the many that the job belongs to.
    """

    picture: bytes | None
    settings: str
    seed: int
    by: str
    idempotency_key: str | None = None
    input_sha256: str | None = None
    batch: str | None = None


def take_in(farm: Parts, upload: Upload) -> tuple[Job, bool]:
    """Stores the picture and then the job; says whether the job is new. Blocks: for a thread of `farm.intake`.

    The work is the same however long the queue is.

    Raises:
        BadInputError: something is wrong with the picture or a setting; nothing was stored.
        KeyReusedError: the idempotency key belongs to another request. No job was stored.
        FarmError: the disk refuses.
    """
    return _submit(farm, upload, _submission(farm, upload), _checked(farm, upload))


def take_in_all(farm: Parts, uploads: Sequence[Upload], names: Sequence[str]) -> list[Job]:
    """Stores a job for each upload, all or none: every picture is looked at before the first is stored. `names` are for errors.

    Raises:
        BadInputError, KeyReusedError, FarmError: as `take_in`; a picture's field is "image[N]", counted from 0.
    """
    checked = []
    for index, (upload, name) in enumerate(zip(uploads, names, strict=True)):
        submission = _submission(farm, upload)
        try:
            checked.append((upload, submission, _checked(farm, upload)))
        except BadInputError as error:
            raise BadInputError(f"image[{index}]", f"{name}: {error.message}", error.remedy) from error
    return [_submit(farm, *one)[0] for one in checked]


def _submission(farm: Parts, upload: Upload) -> Submission:
    if upload.batch is not None and not _BATCH.fullmatch(upload.batch):
        raise BadInputError(
            "batch",
            "A batch's name has 1 to 80 letters, digits, blanks, dots, dashes and underscores, and begins with a letter or digit.",
        )
    return parse_settings(
        upload.settings,
        models=farm.models,
        presets=farm.presets,
        default_preset=default_preset(farm),
        random_seed=upload.seed,
    )


def _submit(
    farm: Parts, upload: Upload, submission: Submission, checked: Picture | Artifact
) -> tuple[Job, bool]:
    picture = checked
    if isinstance(picture, Picture):
        picture = farm.artifacts.put(picture.data, picture.media_type)
    new = NewJob(
        settings=submission.settings,
        tier=submission.tier,
        draft=farm.models[submission.settings.model].draft,
        picture=picture,
        preset=submission.preset,
        priority=submission.priority,
        anywhere=submission.anywhere,
        needs=submission.needs,
        submitted_by=upload.by,
        idempotency_key=upload.idempotency_key,
        request_sha256=_fingerprint(upload) if upload.idempotency_key else None,
        batch=upload.batch,
    )
    return farm.requests.submit(new, farm.now())


def _checked(farm: Parts, upload: Upload) -> Picture | Artifact:
    """The picture that was sent, looked at and not stored yet; or the stored one that was named by its hash."""
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
        return sent
    if wanted is None:
        raise BadInputError("image", "No picture was sent.", "Send a PNG, JPEG or WebP file.")
    # Only a job's picture counts, not any file of the store: what may be seen is decided by jobs.
    kept = farm.reader.input_kept(wanted) if farm.artifacts.touch(wanted) else None
    if kept is None:
        raise BadInputError(
            "input_sha256",
            "The farm has no picture with this SHA-256.",
            "Send the picture itself as `image`.",
        )
    return Artifact(wanted, kept[1], farm.artifacts.path(wanted).stat().st_size)


def _fingerprint(upload: Upload) -> str:
    """What tells one request from another: the bytes or the hash of the picture, and the settings that were named."""
    settings = json.dumps(json.loads(upload.settings.strip() or "{}"), sort_keys=True)
    picture = hashlib.sha256(upload.picture or b"").digest()
    further = f"{upload.input_sha256 or ''}{'' if upload.batch is None else f'batch {upload.batch}'}"
    return hashlib.sha256(picture + settings.encode() + further.encode()).hexdigest()
