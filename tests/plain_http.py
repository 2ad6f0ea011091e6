"""httpx's calls for tests that speak plain HTTP: without the certificates of the world, which take it 50 ms of a core at every call.

They have patience: on a busy machine an answer may take longer than httpx's five seconds.
"""

import ssl
from functools import partial

import httpx

NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: over TLS every call fails."""
LIMIT_S = 30.0

get = partial(httpx.get, verify=NOBODY, timeout=LIMIT_S)
delete = partial(httpx.delete, verify=NOBODY, timeout=LIMIT_S)
post = partial(httpx.post, verify=NOBODY, timeout=LIMIT_S)
request = partial(httpx.request, verify=NOBODY, timeout=LIMIT_S)
stream = partial(httpx.stream, verify=NOBODY, timeout=LIMIT_S)
Client = partial(httpx.Client, verify=NOBODY, timeout=LIMIT_S)
