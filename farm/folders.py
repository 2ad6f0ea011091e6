"""Every picture of a folder made into a clip: sent once whatever happens, and fetched when it is done. What `farm batch` is made of."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farm.answers.jobs import JobView
from farm.client import Farm
from farm.errors import BadInputError, NotFoundError

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


@dataclass
class FolderBatch:
    """The pictures of `folder` as jobs of one batch, their clips in `out` (None: they stay on the head).

    A picture is sent under a key made of the batch, the settings and its bytes: sent again, by this run or the next, it gives the same
    job, so that a batch that was broken off goes on. `refused` holds what the head said of pictures that it cannot use, `stuck` why no card
    can make a picture's clip, and `unfetched` why a clip that was made did not come.
    """

    farm: Farm
    folder: Path
    name: str
    settings: Mapping[str, Any]
    out: Path | None = None
    jobs: dict[Path, str] = field(default_factory=dict)
    refused: dict[Path, BadInputError] = field(default_factory=dict)
    ended: dict[Path, JobView] = field(default_factory=dict)
    stuck: dict[Path, str] = field(default_factory=dict)
    unfetched: dict[Path, str] = field(default_factory=dict)
    _sizes: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def send_new(self, *, settled: bool = False) -> list[Path]:
        """Sends the pictures that were not sent yet, by name; says which. With `settled` only those that did not grow since the last look.

        Raises:
            BadInputError: a setting cannot be used; it is the same for all.
        """
        sent = []
        for path in sorted(self.folder.iterdir()):
            if path.suffix.lower() not in PICTURES or path.name.startswith("."):
                continue  # a Mac keeps what it knows of a.jpg in ._a.jpg
            if path in self.jobs or not path.is_file():
                continue
            same = self._has_settled(path)
            if path in self.refused:
                if not same:  # saved anew, as the refusal asks for: sent once it has settled
                    del self.refused[path]
                continue
            if settled and not same:
                continue
            try:
                data = path.read_bytes()
                job = self.farm.submit(path, key=self._key(data), batch=self.name, **self.settings)
            except BadInputError as error:
                if error.field != "image":
                    raise
                self.refused[path] = error
                continue
            self.jobs[path] = job.id
            sent.append(path)
        return sent

    def fetch_ended(self) -> list[Path]:
        """Looks at the jobs that have not ended yet, and fetches the clips of those that have; says which pictures' jobs ended."""
        news = []
        for path, job_id in self.jobs.items():
            if path in self.ended:
                continue
            job = self.farm.job(job_id)
            self.stuck.pop(path, None)
            if not job.ended:
                if job.unplaceable is not None:
                    self.stuck[path] = job.unplaceable
                continue
            if job.status == "finished" and self.out is not None:
                self._fetch(path, job)
            self.ended[path] = job
            news.append(path)
        return news

    def _fetch(self, picture: Path, job: JobView) -> None:
        """Saves a picture's clip, once. A file of its name is kept: of other settings, or none of the farm's, like a telephone's video."""
        clip = self.clip_of(picture)
        if not clip.exists():
            clip.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.farm.video(job.id, clip)
            except NotFoundError as error:  # the farm keeps clips for a while only
                self.unfetched[picture] = f"{error.message} {error.remedy}".rstrip()
            return
        with clip.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if job.stages and job.stages[-1].sha256 not in (None, found):
            self.unfetched[picture] = (
                f"{clip} is there already and is another file. Take it away, or name another folder with --out, and run the same "
                "line again."
            )

    def clip_of(self, picture: Path) -> Path:
        """Where a picture's clip lies once it is fetched. Two pictures of one name and different kinds keep their kinds."""
        twins = [
            path
            for path in self.folder.iterdir()
            if path.stem == picture.stem and path.suffix.lower() in PICTURES
        ]
        name = picture.name if len(twins) > 1 else picture.stem
        return (self.out or self.folder) / f"{name}.mp4"

    @property
    def done(self) -> bool:
        """Whether every job that was sent has ended."""
        return self.ended.keys() == self.jobs.keys()

    def _key(self, data: bytes) -> str:
        said = json.dumps(
            [self.name, {name: value for name, value in self.settings.items() if value is not None}]
        )
        return hashlib.sha256(said.encode() + hashlib.sha256(data).digest()).hexdigest()

    def _has_settled(self, path: Path) -> bool:
        """Whether the file is as it was at the last look: someone may still be copying it."""
        stat = path.stat()
        now = (stat.st_size, stat.st_mtime_ns)
        before = self._sizes.get(path)
        self._sizes[path] = now
        return before == now
