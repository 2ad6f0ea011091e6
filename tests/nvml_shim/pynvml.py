"""In place of NVML in every process of a real farm: the fake one, with the cards of the file that FARM_TEST_NVML names.

The file is read anew when it changes. Put this folder on PYTHONPATH before the real library, and the project's folder too.
"""

import os
import sys
from pathlib import Path

_here = str(Path(__file__).parent)
sys.modules.pop("pynvml")
sys.path = [entry for entry in sys.path if str(Path(entry).absolute()) != _here]

from tests.fake_nvml import FakeNvml, recorded  # noqa: E402  # finds the real library now, for its errors

_FILE = Path(os.environ["FARM_TEST_NVML"])


class _Live(FakeNvml):
    """The file's PC, as the file is now."""

    seen = 0.0

    def _check_started(self) -> None:
        changed = _FILE.stat().st_mtime
        if changed != self.seen:
            now = recorded(str(_FILE.with_suffix("")))
            self.gpus, self.programs, self.driver, self.cuda = now.gpus, now.programs, now.driver, now.cuda
            self.seen = changed
        super()._check_started()


sys.modules["pynvml"] = _Live().module()
