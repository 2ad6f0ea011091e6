"""httpx's calls for tests that speak plain HTTP: without the certificates of the world, which take it 50 ms of a core at every call."""

import ssl
from functools import partial

import httpx

NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Trusts nobody: over TLS every call fails."""

get = partial(httpx.get, verify=NOBODY)
delete = partial(httpx.delete, verify=NOBODY)
post = partial(httpx.post, verify=NOBODY)
request = partial(httpx.request, verify=NOBODY)
stream = partial(httpx.stream, verify=NOBODY)
Client = partial(httpx.Client, verify=NOBODY)
