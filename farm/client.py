"""The farm from Python: a typed client of the head's HTTP API. The client verbs of `farm` are made of it.

with Farm("http://127.0.0.1:8000", token) as farm:
    job = farm.submit(Path("cat.jpg"), preset="draft", prompt="slow zoom")
    farm.wait(job.id)
    farm.video(job.id, Path("cat.mp4"))
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar
from urllib.parse import quote
from uuid import uuid4

import httpx
from pydantic import TypeAdapter

from farm.animation import ClipFormat
from farm.answers.catalogue import ModelView, PresetView
from farm.answers.forecasts import CardForecast
from farm.answers.jobs import BatchView, JobPage, JobView
from farm.answers.keeping import TokenView
from farm.answers.machines import CardEvent, CardView, NodeView
from farm.errors import BadInputError, FarmError, HeadUnreachableError, NotFoundError
from farm.head_link import TIMEOUT, HeadLink
from farm.own_head import own_ca, own_head, own_token
from farm.settings import FarmSettings

ABSENCE_S = 120.0
"""How long `wait` bears a head that does not answer: a restart takes seconds, a reboot a minute."""
MAKING = httpx.Timeout(900.0, connect=5.0)
"""For a GIF or WebP: the head makes one at a time, for three minutes at the most, and lets four wait."""
POLL_S = (0.2, 1.0)
"""Pause between two looks at a job: short at first, for drafts that take seconds."""

View = TypeVar("View", CardView, CardEvent, NodeView, PresetView, ModelView)
_JOB = TypeAdapter(JobView)
_PAGE = TypeAdapter(JobPage)
_BATCH = TypeAdapter(BatchView)
_NODE = TypeAdapter(NodeView)
_TOKEN = TypeAdapter(TokenView)
_FORECASTS = TypeAdapter(list[CardForecast])


class Farm:
    """A head at `head` (URL), spoken to with `token`. Close it, or use it in a `with` block.

    `ca` is the certificate of the farm's authority, where the head has TLS; without it the system's authorities count.

    Every method raises `HeadUnreachableError` when nobody answers, `SignInError` for a token that is not good, and the error that
    the head names otherwise.
    """

    def __init__(self, head: str, token: str, ca: Path | None = None) -> None:
        self._link = HeadLink(head, token, ca)
        self.head = self._link.head

    @classmethod
    def local(cls, head: str | None = None, token: str | None = None) -> "Farm":
        """The farm that `head` and `token`, or FARM_HEAD and FARM_TOKEN, name; else the one on this PC.

        Raises:
            SignInError: no token is given, and this PC's own cannot be read or is not for that head.
        """
        settings = FarmSettings()
        own = own_head(settings)
        head = head or (settings.head if "head" in settings.model_fields_set else own)
        return cls(head, token or settings.token or own_token(head, own, settings), own_ca(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._link.close()

    def submit(
        self,
        image: Path | None = None,
        *,
        input_sha256: str | None = None,
        key: str | None = None,
        batch: str | None = None,
        **settings: object,
    ) -> JobView:
        """Sends a picture; `settings` are those of the API, and those that are None are left to the farm.

        `input_sha256` names a picture as the farm keeps it, as a job's view and a clip's metadata do: without `image` the one to take
        again, with it what that must come to. `batch` names the many that the job belongs to. `key` makes a repeat of the very same
        call give the same job; without one, only the repeats within this call are safe.

        Raises:
            BadInputError: the farm cannot use the picture or a setting, or does not have the picture; `field` says which.
        """
        named = {name: value for name, value in settings.items() if value is not None}
        parts: dict[str, tuple[str | None, str | bytes]] = {"settings": (None, json.dumps(named))}
        if batch is not None:
            parts["batch"] = (None, batch)
        if input_sha256 is not None:
            parts["input_sha256"] = (None, input_sha256)
        if image is not None:
            try:
                # Names are bytes, of old disks not always UTF-8, which is all that goes over the line.
                name = os.fsencode(image.name).decode(errors="replace")
                parts["image"] = (name, image.read_bytes())
            except OSError as error:
                message = f"Cannot read the picture {image}: {error.strerror}."
                raise BadInputError("image", message, "Name a PNG, JPEG or WebP file.") from error
        answer = self._link.call(
            "POST",
            "/jobs",
            headers={"idempotency-key": key or uuid4().hex},
            files=parts,
        )
        return self._link.read(_JOB, answer)

    def jobs(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        card: str | None = None,
        q: str | None = None,
        batch: str | None = None,
        cursor: int | None = None,
        limit: int = 50,
    ) -> JobPage:
        """A page of jobs, newest first."""
        asked = {
            "status": status,
            "model": model,
            "card": card,
            "q": q,
            "batch": batch,
            "cursor": cursor,
            "limit": limit,
        }
        given = {name: value for name, value in asked.items() if value is not None}
        return self._link.read(_PAGE, self._link.call("GET", "/jobs", params=given))

    def batch(self, batch_id: str) -> BatchView:
        """How many jobs of a batch stand where.

        Raises:
            NotFoundError: there is none of this id.
        """
        return self._link.read(_BATCH, self._link.call("GET", f"/batches/{quote(batch_id, safe='')}"))

    def job(self, job_id: str) -> JobView:
        """One job, with all its attempts.

        Raises:
            NotFoundError: there is none of this id.
        """
        return self._job("GET", job_id)

    def wait(self, job_id: str, on_progress: Callable[[JobView], None] | None = None) -> JobView:
        """Returns the job once it is finished, failed or cancelled; bears a head that restarts meanwhile."""
        pause, seen = POLL_S[0], time.monotonic()
        while True:
            try:
                job = self.job(job_id)
            except HeadUnreachableError:
                if time.monotonic() - seen > ABSENCE_S:
                    raise
            else:
                seen = time.monotonic()
                if on_progress is not None:
                    on_progress(job)
                if job.ended:
                    return job
            time.sleep(pause)
            pause = min(pause * 1.2, POLL_S[1])

    def cancel(self, job_id: str) -> JobView:
        """Asks for a job to be stopped.

        Raises:
            ConflictError: it has ended already.
        """
        return self._job("POST", job_id, "/cancel")

    def retry(self, job_id: str) -> JobView:
        """Asks for a failed or cancelled job to be tried again.

        Raises:
            ConflictError: it is neither failed nor cancelled.
        """
        return self._job("POST", job_id, "/retry")

    def set_priority(self, job_id: str, priority: int) -> JobView:
        """Moves a waiting job in the queue; higher goes first.

        Raises:
            ConflictError: it has ended already.
        """
        return self._job("POST", job_id, "/priority", {"priority": priority})

    def rate(self, job_id: str, rating: int) -> JobView:
        """Rates a finished clip, 1 to 5.

        Raises:
            ConflictError: the job is not finished.
        """
        return self._job("POST", job_id, "/rating", {"rating": rating})

    def log(self, job_id: str) -> str:
        """What happened to a job, as text."""
        return self._link.call("GET", f"/jobs/{quote(job_id, safe='')}/log").text

    def video(self, job_id: str, path: Path, *, kind: ClipFormat = ClipFormat.MP4, loop: int = 0) -> Path:
        """Saves a finished clip as `path`; what was there is replaced only by a whole file with the right hash.

        A GIF or WebP is made by the head first, which takes seconds, and plays `loop` times, 0 for ever.

        Raises:
            NotFoundError: the job has no video.
            FarmError: the head cannot make the GIF or WebP; the file cannot be written, or arrived damaged.
        """
        # Of a long name only the begin: with more at its end it may be longer than a disk takes.
        part = path.with_name(f"{path.name[:60]}.{uuid4().hex[:8]}.part")
        try:
            with (
                self._link.stream(
                    f"/jobs/{quote(job_id, safe='')}/video",
                    TIMEOUT if kind is ClipFormat.MP4 else MAKING,
                    params={"format": str(kind), "loop": loop},
                ) as answer,
                part.open("wb") as file,
            ):
                found = _save(answer, file)
            wanted = answer.headers.get("etag", "").strip('"')
            if found != wanted:
                raise FarmError(f"The video of job {job_id} arrived damaged.", "Fetch it again.")
            part.replace(path)
        except OSError as error:
            message = f"Cannot write the video to {path}: {error.strerror or error}."
            raise FarmError(message, "Name another file with --output.") from error
        finally:
            part.unlink(missing_ok=True)
        return path

    def plan(self, **settings: object) -> list[CardForecast]:
        """What a render with these settings would come to on each card, the best first; nothing is queued.

        `settings` are those of `submit`; no prompt is needed, and those that are None are left to the farm.

        Raises:
            BadInputError: the farm cannot use a setting; `field` says which.
        """
        named = {name: value for name, value in settings.items() if value is not None}
        return self._link.read(_FORECASTS, self._link.call("POST", "/plan", json=named))

    def nodes(self) -> list[NodeView]:
        """The PCs of the farm, with their cards."""
        return self._list("/nodes", NodeView)

    def cards(self) -> list[CardView]:
        """The cards of the farm and what they do."""
        return self._list("/cards", CardView)

    def card_history(self, card_id: str) -> list[CardEvent]:
        """What happened to a card, newest first.

        Raises:
            NotFoundError: there is none of this id.
        """
        return self._list(f"/cards/{quote(card_id, safe='')}/history", CardEvent)

    def node(self, named: str) -> NodeView:
        """The PC of this id or, where only one has it, of this name.

        Raises:
            NotFoundError: there is none; or several have the name.
        """
        nodes = self.nodes()
        found = [node for node in nodes if node.id == named] or [node for node in nodes if node.name == named]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(node.id for node in found)
            raise NotFoundError(f"{len(found)} PCs are called {named}.", f"Name one by its id: {ids}.")
        raise NotFoundError(f"There is no PC {named}.", "`farm nodes` lists the PCs there are.")

    def drain(self, node_id: str) -> NodeView:
        """Gives a PC no new work; what it is at goes on.

        Raises:
            NotFoundError: there is none of this id.
        """
        return self._node("POST", node_id, "/drain")

    def resume(self, node_id: str) -> NodeView:
        """Gives a PC work again.

        Raises:
            NotFoundError: there is none of this id.
        """
        return self._node("POST", node_id, "/resume")

    def forget(self, node_id: str) -> NodeView:
        """Strikes a PC that is gone from the lists.

        Raises:
            NotFoundError: there is none of this id.
            ConflictError: it is not gone.
        """
        return self._node("DELETE", node_id)

    def presets(self) -> list[PresetView]:
        """The presets to choose from."""
        return self._list("/presets", PresetView)

    def models(self) -> list[ModelView]:
        """The models to choose from."""
        return self._list("/models", ModelView)

    def join_code(self, minutes: int = 60) -> TokenView:
        """A code that makes one PC a node, once."""
        answer = self._link.call("POST", "/tokens", json={"kind": "join", "minutes": minutes})
        return self._link.read(_TOKEN, answer)

    def _job(
        self, method: str, job_id: str, verb: str = "", body: Mapping[str, object] | None = None
    ) -> JobView:
        answer = self._link.call(method, f"/jobs/{quote(job_id, safe='')}{verb}", json=body)
        return self._link.read(_JOB, answer)

    def _node(self, method: str, node_id: str, verb: str = "") -> NodeView:
        return self._link.read(_NODE, self._link.call(method, f"/nodes/{quote(node_id, safe='')}{verb}"))

    def _list(self, path: str, kind: type[View]) -> list[View]:
        return self._link.read(TypeAdapter(list[kind]), self._link.call("GET", path))  # type: ignore[valid-type]  # a class as a value


def _save(answer: httpx.Response, file: IO[bytes]) -> str:
    """Writes the body; gives its SHA-256."""
    digest = hashlib.sha256()
    for block in answer.iter_bytes(1 << 18):
        digest.update(block)
        file.write(block)
    return digest.hexdigest()
