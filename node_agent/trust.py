"""How a node knows its head where the farm has TLS: by the farm's CA, which came with the line or is held to a fingerprint first.

Nothing is believed because it was seen first: without line, file or fingerprint only the system's authorities count.

`farm.certificates` is imported where it is used: it takes 10 MiB, and most nodes have no TLS.
"""

import shutil
from pathlib import Path

import httpx

from farm.errors import ConfigurationError
from farm.secret_files import ensure_private_directory, write_secret
from farm.tls import CA_FILE, TlsFiles
from node_agent.head_line import CALL_LIMIT_S, HeadSilentError


def learn_ca(home: Path, head: str, *, given: Path | None, pin: str) -> Path | None:
    """The CA's certificate in the node's home, taken anew from the file `given` or from the head, if it has the fingerprint `pin`.

    Raises:
        ConfigurationError: the file cannot be read, or the head's CA has another fingerprint.
        HeadSilentError: the head does not answer.
    """
    kept = home / CA_FILE
    if given is not None:
        try:
            if given.resolve() != kept.resolve():
                shutil.copyfile(given, kept)
        except OSError as error:
            raise ConfigurationError(
                f"The farm's certificate cannot be read from {given}: {error.strerror}.",
                "Name its file in FARM_CA.",
            ) from error
    elif pin:
        write_secret(kept, _pinned(head, pin))
    return kept if kept.exists() else None


def _pinned(head: str, pin: str) -> str:
    from farm.certificates import fingerprint  # noqa: PLC0415 - see above

    wanted = pin.replace(":", "").strip().lower()
    try:
        # Unverified on purpose: this is not a secret, and what comes is held to the fingerprint before it is used.
        answer = httpx.get(f"{head}/join/ca.pem", verify=False, timeout=CALL_LIMIT_S, trust_env=False)  # noqa: S501
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise HeadSilentError(f"The head at {head} does not answer ({error}).") from error
    try:
        found = fingerprint(answer.text)
    except ValueError:
        found = "no certificate"
    if found != wanted:
        raise ConfigurationError(
            f"What answers at {head} is not the farm with the fingerprint {wanted}: it shows {found}.",
            "Compare with what `farm up` prints on the head. If that differs too, somebody is in between.",
        )
    return answer.text


def request_for(home: Path, name: str) -> str:
    """This PC's request (PEM) for a certificate."""
    from farm.certificates import make_request  # noqa: PLC0415 - see above

    return make_request(_files(home).key, name)


def keep_certificate(home: Path, certificate: str) -> TlsFiles:
    """Puts the certificate that the head gave beside its key."""
    files = _files(home)
    ensure_private_directory(files.certificate.parent)
    write_secret(files.certificate, certificate)
    return files


def _files(home: Path) -> TlsFiles:
    return TlsFiles.in_folder(home / "tls", home / CA_FILE)
