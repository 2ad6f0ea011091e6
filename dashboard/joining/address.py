"""Under which address other PCs find this head."""

from fastapi import Request

from dashboard.joining.lines import is_plain
from farm.daemons import is_loopback, own_address_towards
from farm.settings import FarmSettings


def head_address(request: Request, settings: FarmSettings) -> tuple[str, bool]:
    """The address under which other PCs find this head, and whether they can reach it at all.

    Whoever came here by an address that is not loopback's has shown that it works; else the one that `farm up` listens on counts.
    """
    host, port = settings.host, settings.port
    scheme = "https" if settings.tls else "http"
    came_by = request.url.hostname or ""
    if came_by and not is_loopback(came_by) and came_by != "::1" and is_plain(came_url(request)):
        return came_url(request), True
    if is_loopback(host) or host == "::1":
        return f"{scheme}://ADDRESS:{port}", False
    if host in ("0.0.0.0", "::"):  # noqa: S104  # a comparison
        try:
            host = own_address_towards("192.0.2.1", 9)  # an address for documentation: any way out
        except OSError:
            return f"{scheme}://ADDRESS:{port}", False
    return f"{scheme}://{host}:{port}", True


def came_url(request: Request) -> str:
    """The address by which this request came. Its host is what the sender wrote: see `is_plain`."""
    return f"{request.url.scheme}://{request.url.netloc}"
