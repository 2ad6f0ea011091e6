"""Chromium runs without netlink, by which it would hear of the network tests' interfaces."""

import os
import platform
import subprocess
import sys

import pytest

from tests.browser.chromium import QUIET

_TRY = """
import socket
socket.socket().close()
socket.socket(socket.AF_UNIX).close()
try:
    socket.socket(socket.AF_NETLINK)
except OSError as error:
    print(error.errno)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the filter knows two machines")
def test_a_program_gets_no_netlink_socket_and_all_others() -> None:
    """Browser tests failed with ERR_NETWORK_CHANGED when network tests made their interfaces at the same time."""
    ran = subprocess.run(
        [QUIET, "-c", _TRY],
        env=os.environ | {"QUIET_CHROMIUM": sys.executable},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "97\n", "EAFNOSUPPORT"
