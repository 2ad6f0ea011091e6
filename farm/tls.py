"""Where certificates lie, and how a farm with TLS is spoken to. Makes none: `farm.certificates` does.

A farm has an authority (CA) of its own, since no public one vouches for PCs of a home. Ray asks both ends of every connection for a
certificate of it, so that only PCs that the head has let in are heard at all; web clients know the head by it.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from farm.errors import ConfigurationError

CA_FILE = "farm-ca.pem"
"""The farm's CA in a node's home: what the node knows its head by."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """One PC's certificate and key, and the CA that it believes; all PEM. In a folder of their own, mode 0700."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def in_folder(cls, folder: Path, ca: Path | None = None) -> "TlsFiles":
        """The files of a PC: its folder holds the CA's certificate too, unless that lies elsewhere."""
        return cls(ca or folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")


RAY_NAMES = ("RAY_USE_TLS", "RAY_TLS_CA_CERT", "RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY")


def ray_variables(files: TlsFiles | None) -> Mapping[str, str]:
    """What Ray's daemons and drivers must have in their environment; nothing without TLS."""
    if files is None:
        return {}
    return dict(zip(RAY_NAMES, ("1", str(files.ca), str(files.certificate), str(files.key)), strict=True))


def trust(head: str, ca: Path | None) -> ssl.SSLContext | bool:
    """How httpx shall know the head at a URL: by the farm's CA where there is one, else by the system's.

    Without TLS by nothing, and then the certificates of the world are not read, which takes longer than all else that a client does.

    Raises:
        ConfigurationError: the CA's file is there and cannot be used.
    """
    if not head.startswith("https:"):
        return False
    try:
        if ca is None or not ca.exists():
            return True
        return ssl.create_default_context(cafile=str(ca))
    except OSError as error:  # ssl's own are of this kind
        raise ConfigurationError(
            f"The certificate of the farm's authority in {ca} cannot be used: {error.strerror or error}.",
            "Copy it from the head once more, which prints where it lies as it starts, and name the copy in FARM_CA.",
        ) from error
