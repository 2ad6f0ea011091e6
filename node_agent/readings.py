"""One look at a GPU, as plain values: who is on it, and how it is. `probe` takes them, the rest of the node reasons about them. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from farm.planning.memory import CONTEXT_GIB
from farm.vitals import Vitals


@dataclass(frozen=True, slots=True)
class CardProgram:
    """A program on the card. `gib` is None where the driver does not tell, as on Windows; `computes`: it uses CUDA, not only pictures."""

    pid: int
    name: str
    gib: float | None
    computes: bool = False


@dataclass(frozen=True, slots=True)
class CardReading:
    """A GPU at one moment; memory in GiB. `programs` is None where the driver lists none, as under WSL."""

    id: str
    vitals: Vitals
    total_gib: float | None = None
    programs: tuple[CardProgram, ...] | None = None

    def others(self, ours: Collection[int]) -> tuple[CardProgram, ...] | None:
        """The programs that are not of the farm (`ours` are the process ids of its workers on this card).

        None where nobody can tell: the driver lists none, or it numbers them as another system does, since a worker of ours that is
        there is not among them (a container).
        """
        if self.programs is None:
            return None
        found = tuple(program for program in self.programs if program.pid not in ours)
        return None if ours and len(found) == len(self.programs) else found

    def others_gib(self, ours: Collection[int], held_gib: float = 0.0) -> float | None:
        """GiB that other programs hold; None where it cannot be told.

        By the list where it tells each one's memory, else by what is used and not ours: `held_gib` is what our worker's allocator holds,
        on top of which its CUDA context comes.
        """
        others = self.others(ours)
        if others is not None:
            sizes = [program.gib for program in others]
            known = [size for size in sizes if size is not None]
            if len(known) == len(sizes):
                return sum(known)
        if self.vitals.memory_used_gib is None:
            return None
        own = held_gib + CONTEXT_GIB if ours else 0.0
        return max(0.0, self.vitals.memory_used_gib - own)
