"""The head's shelf of models, as a node reads it: over HTTP, with the node's own credential."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import quote

import httpx
from pydantic import TypeAdapter, ValidationError

from farm.errors import HeadUnreachableError, WeightsTransferError
from farm.tls import trust
from farm.weights import PIECE, Manifest, manifest_from_json
from farm.wire import WeightsOffer

_LIMITS = httpx.Timeout(30.0, connect=10.0)
"""A head that sends nothing for so long is taken for gone; what came is kept."""
_OFFER: TypeAdapter[WeightsOffer] = TypeAdapter(WeightsOffer)


class ChangedMeanwhileError(WeightsTransferError):
    """The head has the model no longer, or another version of it: ask it again what it has."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file of a model from byte `start` on; `sha256` says which version of it."""

    model: str
    path: str
    sha256: str
    start: int = 0


class HeadShelf:
    """What a node asks its head. Use as a context manager.

    Every method raises HeadUnreachableError where the head does not answer or refuses, and WeightsTransferError for an answer that is not
    what it should be.
    """

    def __init__(self, head: str, node_token: str, ca: Path | None = None) -> None:
        self._head = head
        # No proxy from the environment: a head on the LAN is not behind one.
        self._http = httpx.Client(
            base_url=f"{head}/api/v1",
            timeout=_LIMITS,
            trust_env=False,
            verify=trust(head, ca),
            # The lengths count: nothing may be packed on its way.
            headers={"Authorization": f"Bearer {node_token}", "Accept-Encoding": "identity"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()

    def offer(self) -> WeightsOffer:
        """The models that the head has, and those that it has no longer."""
        try:
            return _OFFER.validate_json(self._read("/nodes/weights"))
        except ValidationError as error:
            raise WeightsTransferError(
                f"What {self._head} says of its models cannot be read.",
                "Update the farm on this PC and on the head.",
            ) from error

    def manifest(self, model: str) -> Manifest:
        """A model's files."""
        found = manifest_from_json(self._read(f"/models/{quote(model, safe='')}/manifest"))
        if found.name != model:
            raise WeightsTransferError(
                f"The head sent {found.name[:80]} in place of {model}.", "Update the farm on both PCs."
            )
        return found

    def pieces(self, wanted: Wanted) -> Iterator[bytes]:
        """The file's bytes as they come, from `start` on."""
        address = f"/models/{quote(wanted.model, safe='')}/files/{quote(wanted.path)}"
        headers = {"Range": f"bytes={wanted.start}-"} if wanted.start else {}
        try:
            with self._http.stream(
                "GET", address, params={"sha256": wanted.sha256}, headers=headers
            ) as answer:
                self._judge(answer)
                if (answer.status_code == httpx.codes.PARTIAL_CONTENT) != bool(wanted.start):
                    raise WeightsTransferError(
                        f"The head did not send {wanted.path} from where it was asked to.",
                        "A proxy between the PCs may be the cause: let them speak without one.",
                    )
                yield from answer.iter_bytes(PIECE)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._silent(error) from error

    def _read(self, address: str) -> bytes:
        try:
            answer = self._http.get(address)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._silent(error) from error
        self._judge(answer)
        return answer.content

    def _judge(self, answer: httpx.Response) -> None:
        if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.CONFLICT):
            raise ChangedMeanwhileError("The head's models have changed meanwhile.", "It is asked again.")
        if answer.is_error:
            said, remedy = _problem(answer.read())
            raise HeadUnreachableError(
                said or f"The head at {self._head} does not give its models: HTTP {answer.status_code}.",
                remedy or "It is asked again; the dashboard's log on the head says more.",
            )

    def _silent(self, error: Exception) -> HeadUnreachableError:
        return HeadUnreachableError(
            f"The head at {self._head} does not answer ({type(error).__name__}).", "It is asked again."
        )


def _problem(body: bytes) -> tuple[str, str]:
    """What the head itself says is wrong, and its remedy; empty where it does not."""
    try:
        told = json.loads(body)
        return str(told["detail"]), str(told["remedy"])
    except (ValueError, KeyError, TypeError):
        return "", ""
