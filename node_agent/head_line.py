"""How a node speaks to its head's web server: codes for tickets, tickets again, the way out, and whether the head can dial back."""

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from farm.build import build
from farm.errors import ConfigurationError, FarmError, SignInError
from farm.tls import trust
from farm.wire import JoinTicket, Reach, reach_from_dict, ticket_from_dict

CALL_LIMIT_S = 5.0
KEEP_S = 20.0
"""How long the connection is kept between two calls: two greetings fit in, and the head's side keeps it longer
(`dashboard.__main__.KEEP_S`)."""


class HeadSilentError(FarmError):
    """The head did not answer, or not yet with a ticket; asking again is the remedy."""


class HeadLine:
    """Speaks to the head's web server, which it knows by the farm's authority `ca` where that has TLS."""

    def __init__(self, head: str, ca: Path | None = None) -> None:
        self.head = head
        # No proxy from the environment: a head on the LAN is not behind one.
        self._http = httpx.Client(
            base_url=head,
            timeout=CALL_LIMIT_S,
            trust_env=False,
            verify=trust(head, ca),
            limits=httpx.Limits(keepalive_expiry=KEEP_S),
        )

    def redeem(self, code: str, name: str, node_id: str | None, node_token: str) -> JoinTicket:
        """A ticket for a single-use code. `node_token` becomes this PC's credential; with the same one it may be asked again.

        Raises:
            HeadSilentError: no answer, or not ready.
            SignInError: the code is wrong, used or expired.
            ConfigurationError: this PC's versions are refused.
        """
        wish = {"code": code, "node_id": node_id, "node_token": node_token, **_about(name)}
        return self._ticket("/join/redeem", wish, {})

    def hello(self, node_token: str, name: str, request: str | None = None) -> JoinTicket:
        """A fresh ticket for a node, with a certificate if it sends a request (PEM) for one. Raises as `redeem` does."""
        about: dict[str, Any] = _about(name)
        if request is not None:
            about["csr"] = request
        return self._ticket("/api/v1/nodes/hello", about, _bearer(node_token), again=True)

    def farm_id(self) -> str:
        """Which farm this is. Raises HeadSilentError or ConfigurationError as `redeem` does."""
        try:
            return str(self._asked("GET", "/join/farm")["farm_id"])
        except (KeyError, TypeError) as error:
            raise _no_farm(self.head) from error

    def reach(self, node_token: str, address: str, wanted: Sequence[int], first_port: int) -> Reach:
        """Lets the head dial this PC on some of the ports from `first_port` on. Raises as `redeem` does."""
        asked = {"address": address, "ports": list(wanted), "first_port": first_port}
        try:
            return reach_from_dict(self._asked("POST", "/api/v1/nodes/reach", asked, _bearer(node_token)))
        except ValidationError as error:
            raise _no_farm(self.head) from error

    def bye(self, node_token: str) -> None:
        """Tells the head that this PC leaves the farm, which ends its credential.

        Raises:
            HeadSilentError: no answer, or not the one that was expected.
        """
        try:
            answer = self._http.post("/api/v1/nodes/bye", headers=_bearer(node_token))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise HeadSilentError(f"The head at {self.head} does not answer.") from error
        if answer.is_error and answer.status_code not in (
            httpx.codes.UNAUTHORIZED,
            httpx.codes.FORBIDDEN,
        ):  # those mean that it has ended the credential already
            raise HeadSilentError(f"The head at {self.head} is not ready: {_problem(answer)[0]}")

    def close(self) -> None:
        """Ends the connection."""
        self._http.close()

    def _ticket(
        self, path: str, body: dict[str, Any], headers: dict[str, str], *, again: bool = False
    ) -> JoinTicket:
        try:
            return ticket_from_dict(self._asked("POST", path, body, headers, again=again))
        except ValidationError as error:
            raise _no_farm(self.head) from error

    def _asked(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        *,
        again: bool = False,
    ) -> Any:
        """The head's answer as plain values; `again` for what may reach it twice. Raises as `redeem` does."""
        try:
            try:
                answer = self._http.request(method, path, json=body, headers=headers)
            except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
                # The connection that was kept had ended unseen, as while this PC slept. A fresh one tells how the head is.
                if not again:
                    raise
                answer = self._http.request(method, path, json=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            if "CERTIFICATE_VERIFY_FAILED" in reason:
                reason = "its certificate is not known here: take a fresh line from it, or give `--pin` with what its `farm up` prints"
            raise HeadSilentError(f"The head at {self.head} does not answer ({reason}).") from error
        if answer.status_code == httpx.codes.OK:
            try:
                return answer.json()
            except ValueError as error:
                raise _no_farm(self.head) from error
        message, remedy = _problem(answer)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise SignInError(message, remedy)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise _no_farm(self.head)
        if answer.is_client_error and answer.status_code not in (
            httpx.codes.REQUEST_TIMEOUT,
            httpx.codes.TOO_MANY_REQUESTS,
        ):
            raise ConfigurationError(message, remedy)
        raise HeadSilentError(f"The head at {self.head} is not ready: {message}")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _no_farm(head: str) -> ConfigurationError:
    return ConfigurationError(
        f"What answers at {head} is not a farm's head.",
        "Check the address: `farm up` prints it on the head PC.",
    )


def _about(name: str) -> dict[str, str]:
    return {
        "name": name,
        "farm_version": build(),
        "ray_version": metadata.version("ray"),
        "python_version": platform.python_version(),
    }


def _problem(answer: httpx.Response) -> tuple[str, str]:
    try:
        body = answer.json()
        items = body.get("errors") or []
        detail = str(body.get("detail") or answer.reason_phrase)
        if items:
            detail += " " + "; ".join(f"{item['field']}: {item['message']}" for item in items)
        return detail, str(body.get("remedy", ""))
    except (ValueError, AttributeError, KeyError, TypeError):
        return f"HTTP {answer.status_code} {answer.reason_phrase}", ""


def head_url(text: str) -> str:
    """The head's address as people write it, "192.168.1.5", "head:8000" or a URL, as a URL without a path.

    Raises:
        ConfigurationError: it is no address.
    """
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 8000)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise ConfigurationError(
            f"{text!r} is not the address of a head.",
            "Give it as `farm up` prints it, for example http://192.168.1.5:8000.",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port}"
