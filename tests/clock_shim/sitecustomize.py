"""A PC whose clock is wrong: every Python process that finds this on its path sees the wall clock `FARM_TEST_CLOCK_OFF_S` seconds off.

A time namespace does not shift the wall clock, and Ray's workers crash under libfaketime. Ray's own daemons keep the true clock.
"""

import os
import time

_off_s = float(os.environ["FARM_TEST_CLOCK_OFF_S"])
_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + _off_s
time.time_ns = lambda: _time_ns() + int(_off_s * 1e9)
