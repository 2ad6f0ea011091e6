"""Which jobs' files go, to keep the limits. Pure; `farm.store.retention` knows the files, the scheduler deletes."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

DAY_S = 86_400.0
GB = 1e9


@dataclass(frozen=True, slots=True)
class Limits:
    """For how many days and how many GB (10^9 bytes) the files of ended jobs are kept; None: no such limit."""

    days: float | None = None
    gb: float | None = None

    @property
    def any(self) -> bool:
        """Whether anything is ever deleted."""
        return self.days is not None or self.gb is not None


@dataclass(frozen=True, slots=True)
class Kept:
    """An ended job whose files are there: their SHA-256. `ended_at` in wall seconds."""

    job_id: str
    ended_at: float
    starred: bool
    files: frozenset[str]


@dataclass(frozen=True, slots=True)
class Going:
    """What goes: jobs, oldest first; the files that then nobody needs; their bytes. `left`, `left_size`: ended jobs and bytes that stay."""

    job_ids: tuple[str, ...] = ()
    files: frozenset[str] = frozenset()
    size: int = 0
    left: int = 0
    left_size: int = 0


@dataclass(frozen=True, slots=True)
class Stock:
    """What was kept of ended jobs when the scheduler last looked: `jobs` with files, their `bytes`. `at` in wall seconds."""

    at: float
    jobs: int
    bytes: int


def going(
    kept: Sequence[Kept], needed: Collection[str], sizes: Mapping[str, int], limits: Limits, now: float
) -> Going:
    """What must go now. `needed` are files of jobs that have not ended; `sizes` the bytes of each file.

    A file counts once however many jobs have it, and goes with the last of them. Starred jobs count towards the limit in GB, since they
    take that room, and never go; nor does a job whose files others all need while only room is asked for, as nothing would be won.
    """
    uses = Counter(file for job in kept for file in job.files)
    taken = sum(sizes.get(file, 0) for file in uses)
    most = None if limits.gb is None else limits.gb * GB
    protected = set(needed)
    for job in kept:
        if job.starred:
            protected |= job.files
    gone: list[str] = []
    freed: set[str] = set()
    for job in sorted(kept, key=lambda one: (one.ended_at, one.job_id)):
        if job.starred:
            continue
        too_old = limits.days is not None and job.ended_at < now - limits.days * DAY_S
        too_much = most is not None and taken > most and not job.files <= protected
        if not (too_old or too_much):
            continue
        gone.append(job.job_id)
        for file in job.files:
            uses[file] -= 1
            if not uses[file] and file not in protected:
                freed.add(file)
                taken -= sizes.get(file, 0)
    size = sum(sizes.get(file, 0) for file in freed)
    return Going(tuple(gone), frozenset(freed), size, len(kept) - len(gone), taken)
