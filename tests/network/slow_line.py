"""A line that is slow and loses frames, between two TAP devices: what `tc netem` does, where the kernel lacks it.

`python slow_line.py TAP TAP DELAY_S LOSS SEED`: makes both devices, says "up", and carries every frame from each to the other `DELAY_S`
later, save a share `LOSS` of them. On SIGTERM it says how many it carried and how many it dropped.
"""

import fcntl
import os
import random
import select
import signal
import struct
import sys
import time
from collections import deque

_TUNSETIFF = 0x400454CA
_TAP, _NO_PACKET_INFO = 0x0002, 0x1000
_FRAME = 65536


def main(names: list[str], delay_s: float, loss: float, seed: int) -> None:
    """Carries frames until SIGTERM."""
    taps = [_tap(name) for name in names]
    other = {taps[0]: taps[1], taps[1]: taps[0]}
    drawn = random.Random(seed)  # noqa: S311 - which frames are lost is no secret
    under_way: deque[tuple[float, int, bytes]] = (
        deque()
    )  # in the order of their arrival, as all take equally long
    carried = dropped = 0
    ending: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ending.append(number))
    looking = select.poll()
    for tap in taps:
        looking.register(tap, select.POLLIN)
    print("up", flush=True)
    while not ending:
        left_s = under_way[0][0] - time.monotonic() if under_way else 0.5
        for tap, _ in looking.poll(max(0.0, left_s * 1000.0)):
            frame = os.read(tap, _FRAME)
            if drawn.random() < loss:
                dropped += 1
            else:
                under_way.append((time.monotonic() + delay_s, other[tap], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, tap, frame = under_way.popleft()
            os.write(tap, frame)
            carried += 1
    print(f"carried {carried}, dropped {dropped}", flush=True)


def _tap(name: str) -> int:
    """A TAP device of this name; it lives as long as this process."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _TAP | _NO_PACKET_INFO))
    return device


if __name__ == "__main__":
    main(sys.argv[1:3], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
