"""One look at a GPU, as plain values: who is on it, and how it is. `probe` takes them, the rest of the node reasons about them. Pure."""

from collections.abc import Callable
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
    programs: tuple[CardProgram, ...] | None = None

    def others(
        self, is_ours: Callable[[int], bool], held_gib: float | None
    ) -> tuple[CardProgram, ...] | None:
        """The programs that are not of the farm, which `is_ours` tells by their process ids.

        None where nobody can tell: the driver lists none, or it numbers them as another system does (a container). Then our own worker,
        which is on the card if its allocator holds anything there (`held_gib`, None while it has no context), is not among them.
        """
        if self.programs is None:
            return None
        found = tuple(program for program in self.programs if not is_ours(program.pid))
        return None if held_gib is not None and len(found) == len(self.programs) else found

    def others_gib(self, is_ours: Callable[[int], bool], held_gib: float | None) -> float | None:
        """GiB that other programs hold; None where it cannot be told.

        By the list where it tells each one's memory, else by what is used and is neither held by our worker nor its CUDA context.
        """
        others = self.others(is_ours, held_gib)
        if others is not None:
            sizes = [program.gib for program in others]
            known = [size for size in sizes if size is not None]
            if len(known) == len(sizes):
                return sum(known)
        if self.vitals.memory_used_gib is None:
            return None
        own = held_gib + CONTEXT_GIB if held_gib is not None else 0.0
        return max(0.0, self.vitals.memory_used_gib - own)
