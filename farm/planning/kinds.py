"""Jobs that ask the same of a card are of one kind: what is said of one, of all its cards and times, holds for the others. Pure."""

from farm.model import Job, StageKind


def kind_of(job: Job) -> str:
    """The kind in a word that every process makes alike."""
    asked = job.settings
    shape = f"{asked.width}x{asked.height}x{asked.frames}"
    words = [asked.model, shape, f"{asked.steps}", f"{asked.guidance:g}", str(job.tier)]
    if job.stage is not StageKind.GENERATE:
        words += [str(job.stage), f"{asked.fps} to {asked.smooth} fps"]
    return " ".join(
        [*words, *(["anywhere"] if job.anywhere else []), *job.needs, *(["draft"] if job.draft else [])]
    )
