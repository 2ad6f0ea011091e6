"""Where the head's Ray keeps its state between starts, and the epoch that names this state. See docs/decisions/0002-ray-gcs-storage.md.

As long as the state is kept, the nodes' daemons and the renders on them outlive a crash of the whole head. When it is lost, or of another
Ray, or of another address, a new epoch begins and every node must join again.
"""

import json
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from farm.ids import new_id
from farm.secret_files import ensure_private_directory, write_secret


@dataclass(frozen=True, slots=True)
class Epoch:
    """One life of Ray's state. `inherited`: it was there before this start."""

    id: str
    inherited: bool


class RayStorage:
    """The directory of Ray's state."""

    def __init__(self, root: Path, address: str) -> None:
        self._root = root
        self._facts = root / "epoch.json"
        self._bound_to = {"ray": metadata.version("ray"), "address": address}

    @property
    def environment(self) -> dict[str, str]:
        """What tells Ray's head to keep its state here."""
        return {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(self._state)}

    def open(self) -> Epoch:
        """The epoch for a start now; where the state does not fit this Ray and address, a new one with an empty directory."""
        try:
            facts = json.loads(self._facts.read_text())
            if facts["bound_to"] == self._bound_to and self._state.is_dir():
                return Epoch(str(facts["epoch"]), inherited=True)
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none yet, or half of one: begin anew
        ensure_private_directory(self._root)
        shutil.rmtree(self._state, ignore_errors=True)
        epoch = Epoch(new_id(), inherited=False)
        write_secret(self._facts, json.dumps({"epoch": epoch.id, "bound_to": self._bound_to}))
        self._state.mkdir(mode=0o700)
        return epoch

    def set_aside(self) -> Path:
        """Takes a state that Ray cannot start from out of the way; the last such is kept for whoever looks into it."""
        aside = self._root / "gcs.broken"
        shutil.rmtree(aside, ignore_errors=True)
        self._facts.unlink(missing_ok=True)
        if self._state.exists():
            self._state.rename(aside)
        return aside

    @property
    def _state(self) -> Path:
        return self._root / "gcs"
