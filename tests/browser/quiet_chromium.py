#!/usr/bin/env python3
"""Starts the program that QUIET_CHROMIUM names, without netlink: `socket(AF_NETLINK)` fails there as on a kernel that has none.

Chromium hears through netlink that the PC's network has changed, and then breaks off all it is fetching (ERR_NETWORK_CHANGED). The network
tests, which make and remove interfaces, may run on this PC at the same time. Chromium has no switch for it; without netlink it takes
the network for one that never changes. The filter is inherited by all its processes.
"""

import ctypes
import os
import platform
import struct
import sys

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_AF_NETLINK, _EAFNOSUPPORT = 16, 97
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""By machine: its number in linux/audit.h, and that of the system call `socket`."""


def forbid_netlink() -> None:
    """From here on this process and its children get no netlink socket. On other machines than those above it does nothing."""
    if platform.machine() not in _SOCKET:
        return
    architecture, socket = _SOCKET[platform.machine()]
    rules = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 0, 4, architecture),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_JUMP_EQUAL, 0, 2, socket),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_JUMP_EQUAL, 1, 0, _AF_NETLINK),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERRNO | _EAFNOSUPPORT),
    ]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in rules))
    told = ctypes.create_string_buffer(struct.pack("HP", len(rules), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    for call in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(told), 0, 0),
    ):
        if libc.prctl(*call) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    forbid_netlink()
    os.execv(os.environ["QUIET_CHROMIUM"], [os.environ["QUIET_CHROMIUM"], *sys.argv[1:]])  # noqa: S606 - no shell
