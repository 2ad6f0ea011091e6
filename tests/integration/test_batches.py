"""Many pictures under one name: in one request, and by `farm batch` from a folder, broken off and gone on with."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from farm.client import Farm
from farm.errors import BadInputError, NotFoundError
from farm.folders import FolderBatch
from tests import plain_http
from tests.browser.farm_in_use import picture
from tests.farm_verbs import run_here
from tests.integration.dashboard_server import RunningDashboard, running_dashboard
from tests.integration.test_client import VIDEO, finish
from tests.waiting import wait_until

FARM = [sys.executable, "-m", "farm.cli.main"]
DRAFT = '{"preset": "draft", "prompt": "zoom in"}'


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, and two files that are none of the farm's business."""
    made = tmp_path / "Ann's pictures"
    made.mkdir()
    for name in ("person", "product", "street"):
        (made / f"{name}.jpg").write_bytes(picture(name, 128))
    (made / "notes.txt").write_text("later")
    (made / "._person.jpg").write_bytes(b"Mac OS X")
    return made


def post(
    farm: RunningDashboard, pictures: list[bytes], key: str | None = None, **fields: str
) -> httpx.Response:
    return plain_http.post(
        f"{farm.base_url}/api/v1/batches",
        headers=farm.headers | ({"idempotency-key": key} if key else {}),
        files=[("image", (f"{index}.jpg", data)) for index, data in enumerate(pictures)],
        data=fields,
        timeout=30,
    )


def get(farm: RunningDashboard, path: str) -> httpx.Response:
    return plain_http.get(f"{farm.base_url}/api/v1{path}", headers=farm.headers)


def test_pictures_of_a_batch_may_be_as_large_as_one_job_s(farm: RunningDashboard) -> None:
    """A request for a batch was held to the 1 MiB of those that carry no pictures."""
    answer = post(farm, [picture("person", 128), bytes(3 << 19)], settings=DRAFT)
    assert answer.status_code == 422
    assert [one["field"] for one in answer.json()["errors"]] == ["image[1]"]


def test_many_pictures_in_one_request(farm: RunningDashboard) -> None:
    answer = post(farm, [picture("person", 128), picture("street", 128)], settings=DRAFT, batch="holiday 1")
    assert answer.status_code == 201
    made = answer.json()
    assert made | {"created_at": 0, "job_ids": []} == {
        "id": "holiday 1",
        "jobs": 2,
        "counts": {"queued": 2, "running": 0, "finished": 0, "failed": 0, "cancelled": 0},
        "created_at": 0,
        "ended": False,
        "job_ids": [],
    }
    jobs = [farm.reader.job(one) for one in made["job_ids"]]
    assert [
        farm.data.artifacts.joinpath(job.input_sha256[:2], job.input_sha256).read_bytes() for job in jobs
    ] == [
        picture("person", 128),
        picture("street", 128),
    ]
    listed = get(farm, "/jobs?batch=holiday%201").json()["jobs"]
    assert [(job["id"], job["batch"]) for job in listed] == [
        (one, "holiday 1") for one in made["job_ids"][::-1]
    ]
    assert get(farm, "/jobs?batch=another").json()["jobs"] == []
    for job in jobs:
        farm.writer.cancel_queued(job.id, 9.0)
    shown = get(farm, "/batches/holiday%201").json()
    assert (shown["counts"]["cancelled"], shown["ended"]) == (2, True)
    assert get(farm, "/batches/none").status_code == 404


def test_one_bad_picture_is_named_and_nothing_is_stored(farm: RunningDashboard) -> None:
    answer = post(farm, [picture("person", 128), b"%PDF-1.7"], settings=DRAFT)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["field"] == "image[1]"
    assert error["message"].startswith("1.jpg: ")
    assert farm.reader.jobs().jobs == []
    assert farm.stored_files == []


@pytest.mark.parametrize("name", ["/etc/passwd", " blank", "x" * 81, "a\nb"])
def test_a_name_that_cannot_be_used_is_refused(farm: RunningDashboard, name: str) -> None:
    answer = post(farm, [picture("person", 128)], settings=DRAFT, batch=name)
    assert [error["field"] for error in answer.json()["errors"]] == ["batch"]
    assert farm.reader.jobs().jobs == []


def test_a_repeat_under_the_same_key_makes_no_second_job(farm: RunningDashboard) -> None:
    pictures = [picture("person", 128), picture("street", 128)]
    first, again = (post(farm, pictures, key="K", settings=DRAFT).json() for _ in range(2))
    assert first == again
    assert len(farm.reader.jobs().jobs) == 2
    assert post(farm, pictures[:1], key="K", settings='{"preset": "draft"}').status_code == 409


def test_a_folder_is_sent_once_however_often_it_is_begun_again(farm: RunningDashboard, folder: Path) -> None:
    settings = {"preset": "draft", "prompt": "zoom in", "seed": None}
    with Farm(farm.base_url, farm.admin_token) as client:
        first = FolderBatch(client, folder, "one", settings)
        assert [path.name for path in first.send_new()] == ["person.jpg", "product.jpg", "street.jpg"]
        assert first.send_new() == []
        again = FolderBatch(client, folder, "one", settings)
        again.send_new()
        assert again.jobs == first.jobs
        assert client.batch("one").jobs == 3
        listed = run_here(
            ["jobs", "--batch", "one"], {"FARM_HEAD": farm.base_url, "FARM_TOKEN": farm.admin_token}
        )
        assert all(job_id in listed.stdout for job_id in first.jobs.values())
        none = run_here(
            ["jobs", "--batch", "two"], {"FARM_HEAD": farm.base_url, "FARM_TOKEN": farm.admin_token}
        )
        assert none.stdout == "No job matches.\n"
        other = FolderBatch(client, folder, "one", settings | {"prompt": "zoom out"})
        other.send_new()
        assert not set(other.jobs.values()) & set(first.jobs.values())
        with pytest.raises(NotFoundError):
            client.batch("two")


def test_a_bad_picture_of_a_folder_stops_no_other_and_a_bad_setting_all(
    farm: RunningDashboard, folder: Path
) -> None:
    (folder / "a-bad-one.png").write_bytes(b"no picture")
    with Farm(farm.base_url, farm.admin_token) as client:
        work = FolderBatch(client, folder, "one", {"preset": "draft"})
        assert len(work.send_new()) == 3
        assert [path.name for path in work.refused] == ["a-bad-one.png"]
        with pytest.raises(BadInputError) as wrong:
            FolderBatch(client, folder, "two", {"preset": "draft", "frames": 0}).send_new()
    assert wrong.value.field == "settings.frames"


def test_a_file_that_still_grows_waits_for_the_next_look(farm: RunningDashboard, folder: Path) -> None:
    """A watched folder's picture was sent while it was being copied: half of it."""
    with Farm(farm.base_url, farm.admin_token) as client:
        work = FolderBatch(client, folder, "one", {"preset": "draft"})
        work.send_new()
        late = folder / "late.jpg"
        whole = picture("person", 256)
        late.write_bytes(whole[:500])
        assert work.send_new(settled=True) == []
        late.write_bytes(whole)
        assert work.send_new(settled=True) == []
        assert work.send_new(settled=True) == [late]
    job = farm.reader.job(work.jobs[late])
    assert farm.data.artifacts.joinpath(job.input_sha256[:2], job.input_sha256).read_bytes() == whole


def test_a_refused_picture_that_is_saved_anew_is_sent(farm: RunningDashboard, folder: Path) -> None:
    """A watched folder never looked again at a picture that it had refused, though the refusal asks for it to be saved again."""
    with Farm(farm.base_url, farm.admin_token) as client:
        work = FolderBatch(client, folder, "one", {"preset": "draft"})
        late = folder / "late.jpg"
        late.write_bytes(picture("person", 256)[:500])
        work.send_new()
        assert set(work.refused) == {late}
        assert work.send_new(settled=True) == []
        late.write_bytes(picture("person", 256))
        assert work.send_new(settled=True) == []
        assert work.send_new(settled=True) == [late]
    assert work.refused == {}


def sent(farm: RunningDashboard, folder: Path) -> dict[Path, str]:
    """The jobs that `fetched` will find, by their pictures."""
    with Farm(farm.base_url, farm.admin_token) as client:
        work = FolderBatch(client, folder, "Ann-s pictures", {"preset": "draft"})
        work.send_new()
    return work.jobs


def fetched(farm: RunningDashboard, folder: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """`farm batch --out`, run here."""
    return run_here(
        ["batch", str(folder), "--out", str(out), "--preset", "draft"],
        {"FARM_HEAD": farm.base_url, "FARM_TOKEN": farm.admin_token},
    )


def test_another_file_of_a_clip_s_name_is_kept_and_told(
    farm: RunningDashboard, folder: Path, tmp_path: Path
) -> None:
    """With other settings into the same folder the clips of the first run were called those of the second, which were not fetched."""
    out = tmp_path / "clips"
    jobs = sent(farm, folder)
    for job_id in jobs.values():
        finish(farm, job_id)
    out.mkdir()
    (out / "person.mp4").write_bytes(b"a telephone's own")
    (out / "street.mp4").write_bytes(VIDEO)
    done = fetched(farm, folder, out)
    assert done.returncode == 1
    (told,) = done.stderr.splitlines()
    assert told.startswith(f"person.jpg: finished, but not fetched: {out / 'person.mp4'} is there already")
    assert "person.jpg: finished" not in done.stdout
    assert (out / "person.mp4").read_bytes() == b"a telephone's own"
    assert (out / "product.mp4").read_bytes() == VIDEO
    (out / "person.mp4").unlink()
    assert fetched(farm, folder, out).returncode == 0
    assert (out / "person.mp4").read_bytes() == VIDEO


def test_a_batch_bears_a_head_that_starts_anew_and_a_clip_that_the_farm_has_no_more(
    farm: RunningDashboard, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`farm batch --out` ended at the first look that the head did not answer, and at a clip that was deleted to make room."""
    jobs = sent(farm, folder)
    port, looks = int(farm.base_url.rsplit(":", 1)[1]), iter(range(9))
    with ExitStack() as again:

        def between_two_looks(_seconds: float) -> None:
            match next(looks):
                case 0:
                    farm.server.should_exit = True
                    wait_until(lambda: not any(one.is_serving() for one in farm.server.servers))
                case 1:
                    for job_id in jobs.values():
                        finish(farm, job_id)
                    farm.writer.remove_files([jobs[folder / "street.jpg"]], 2000.0)
                    again.enter_context(running_dashboard(tmp_path, port=port, admin_token=farm.admin_token))

        monkeypatch.setattr(
            "farm.cli.batch.time", SimpleNamespace(sleep=between_two_looks, monotonic=time.monotonic)
        )
        done = fetched(farm, folder, tmp_path / "clips")
    assert done.returncode == 1
    silent, gone = done.stderr.splitlines()
    assert silent.startswith(f"The head at {farm.base_url} does not answer")
    assert silent.endswith("Its renders go on; asking again.")
    assert gone.startswith("street.jpg: finished, but not fetched: Picture and clip of job")
    assert sorted(path.name for path in (tmp_path / "clips").iterdir()) == ["person.mp4", "product.mp4"]


def test_pictures_that_no_card_can_take_are_told_of_once(
    farm: RunningDashboard, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`farm batch --out` waited for ever and said nothing."""
    person, product, street = sent(farm, folder).values()
    farm.writer.mark_unplaceable(dict.fromkeys((person, street), "No card can run it."))
    finish(farm, product)
    looks: list[float] = []

    def between_two_looks(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            for job_id in (person, street):
                farm.writer.cancel_queued(job_id, 9.0)

    monkeypatch.setattr(
        "farm.cli.batch.time", SimpleNamespace(sleep=between_two_looks, monotonic=time.monotonic)
    )
    done = fetched(farm, folder, tmp_path / "clips")
    assert done.stderr.splitlines() == [
        "No card yet for 2 of the pictures. No card can run it.",
        "person.jpg: cancelled",
        "street.jpg: cancelled",
    ]


def test_the_command_fetches_the_clips_and_tells_of_a_failure(
    farm: RunningDashboard, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "clips"
    command = [*FARM, "batch", str(folder), "--out", str(out), "--preset", "draft"]
    environment = {**os.environ, "FARM_HEAD": farm.base_url, "FARM_TOKEN": farm.admin_token}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        wait_until(lambda: len(farm.reader.jobs().jobs) == 3, limit_s=30, what="the jobs")
        product, person = (
            next(job for job in farm.reader.jobs().jobs if _is(farm, job.input_sha256, name))
            for name in ("product", "person")
        )
        finish(farm, product.id)
        farm.writer.cancel_queued(person.id, 9.0)
        wait_until((out / "product.mp4").exists, limit_s=30, what="the first clip")
        running.send_signal(signal.SIGINT)
        said, wrong = running.communicate(timeout=30)
        assert running.returncode == 130, wrong
    assert "Batch Ann-s pictures: 3 jobs" in said
    assert (out / "product.mp4").read_bytes() == VIDEO
    street = next(job for job in farm.reader.jobs().jobs if job.status == "queued")
    finish(farm, street.id)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1  # one was cancelled
    assert "person.jpg: cancelled" in done.stderr
    assert {path.name for path in out.iterdir()} == {"product.mp4", "street.mp4"}
    assert len(farm.reader.jobs().jobs) == 3


def _is(farm: RunningDashboard, sha256: str, name: str) -> bool:
    return farm.data.artifacts.joinpath(sha256[:2], sha256).read_bytes() == picture(name, 128)
