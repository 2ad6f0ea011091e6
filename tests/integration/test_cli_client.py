"""The client verbs as a person runs them: the real `farm` against a real dashboard.

Most run in the test's own process; those that are about a process have one, and one test holds the two ways against each other.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from farm.again import describe
from farm.answers.jobs import JobView
from farm.client import Farm
from farm.feed import JobChanged, LiveJob
from farm.model import Artifact, Card, CardKind, MemoryPlan, Node, RenderSettings, StageKind
from farm.store.claims import Assignment
from farm.store.writer import StageResult
from farm.video import Metadata
from node_agent.encode import encode
from tests.farm_verbs import run_apart, run_here
from tests.integration.dashboard_server import FakeScheduler, RunningDashboard, running_dashboard
from tests.integration.test_client import VIDEO, finish
from tests.storage import SETTINGS
from tests.waiting import wait_until

FARM = [sys.executable, "-m", "farm.cli.main"]


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[RunningDashboard]:
    with running_dashboard(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def idle_farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    """For tests that change nothing in it."""
    with running_dashboard(tmp_path_factory.mktemp("idle")) as running:
        yield running


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    Image.new("RGB", (320, 240), (200, 120, 40)).save(path)
    return path


def own(farm: RunningDashboard) -> dict[str, str]:
    """What a person of that farm has in the environment."""
    return {"FARM_HEAD": farm.base_url, "FARM_DATA": str(farm.data.root), "NO_COLOR": "1"}


def environment(farm: RunningDashboard) -> dict[str, str]:
    return os.environ | own(farm)


def run(
    farm: RunningDashboard, *arguments: object, code: int = 0, process: bool = False, **more: str
) -> subprocess.CompletedProcess[str]:
    """Runs a verb, here or in a process of its own; expects its exit status, and never a stack trace."""
    done = (run_apart if process else run_here)(list(map(str, arguments)), own(farm) | more)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stdout + done.stderr
    return done


def clip(path: Path, metadata: Metadata) -> Path:
    """A real clip that says this of itself: two frames of 64x64 at 8 fps."""
    frames = iter([np.full((64, 64, 3), shade, np.uint8) for shade in (40, 200)])
    return encode(frames, path, fps=8, width=64, height=64, count=2, metadata=metadata).video


def submitted(farm: RunningDashboard, picture: Path, *more: object) -> str:
    return json.loads(run(farm, "submit", picture, "--preset", "draft", "--json", *more).stdout)["id"]


def test_every_verb_explains_itself():
    top = subprocess.run([*FARM, "--help"], capture_output=True, text=True, timeout=30, check=True).stdout
    for verb in (
        "submit",
        "jobs",
        "show",
        "cancel",
        "retry",
        "rate",
        "nodes",
        "cards",
        "drain",
        "resume",
        "forget",
    ):
        assert f"  {verb}" in top
        helped = run_here([verb, "--help"])
        assert helped.returncode == 0
        assert "--head" in helped.stdout
        assert "--token" in helped.stdout
        assert ("--json" in helped.stdout) == (
            verb not in ("cancel", "retry", "rate", "drain", "resume", "forget")
        )


def test_help_is_quick_because_it_loads_no_heavy_library():
    """Seconds differ between machines; what is imported does not."""
    heavy = "{'httpx', 'ray', 'fastapi', 'sqlalchemy', 'pydantic', 'numpy', 'PIL', 'torch', 'rich.progress'}"
    script = f"import sys; import farm.cli.main; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code"), [(["cards"], 0), (["show", "nothing", "--json"], 1), (["submit"], 2)]
)
def test_a_process_says_and_ends_as_the_verb_does_here(
    idle_farm: RunningDashboard, arguments: list[str], code: int
):
    here, there = (run(idle_farm, *arguments, code=code, process=process) for process in (False, True))
    assert (here.stdout, here.stderr) == (there.stdout, there.stderr)
    assert here.stdout if code == 0 else here.stderr


def test_submit_list_show_cancel(farm: RunningDashboard, picture: Path):
    told = run(
        farm, "submit", picture, "--preset", "draft", "--prompt", "slow [red]zoom", "--seed", 7, "--anywhere"
    ).stdout
    job_id = told.split()[1]
    assert f"{farm.base_url}/jobs/{job_id}" in told
    shown = json.loads(run(farm, "show", job_id, "--json").stdout)
    assert (shown["settings"]["seed"], shown["anywhere"], shown["prompt"]) == (7, True, "slow [red]zoom")
    listed = run(farm, "jobs").stdout
    assert job_id in listed
    assert "slow [red]zoom" in listed
    text = run(farm, "show", job_id).stdout
    for word in (
        job_id,
        "512 x 512",
        "16 frames",
        "seed 7",
        "number 1 in the queue",
        "scheduler is not running",
    ):
        assert word in text
    assert "submitted by admin" in run(farm, "show", job_id, "--log").stdout
    assert "is being cancelled" in run(farm, "cancel", job_id).stdout
    assert json.loads(run(farm, "jobs", "--json", "--status", "queued").stdout)["jobs"][0]["cancel_requested"]
    assert "No job matches" in run(farm, "jobs", "--status", "failed").stdout
    assert "No PC has joined yet" in run(farm, "nodes").stdout
    assert json.loads(run(farm, "cards", "--json").stdout) == []


def test_a_smoothed_job_shows_its_stages(farm: RunningDashboard, picture: Path):
    job_id = submitted(farm, picture, "--smooth", "24")
    card = Card("CPU-n1", "n1", CardKind.CPU, "CPU of den", models=frozenset({"animatic"}))
    farm.registry.see_node(Node("n1", "den", "10.0.0.8"), [card], 1.0)
    farm.writer.assign([Assignment("A1", job_id, "n1", card.id, card.name, MemoryPlan())], 10.0)
    left = StageResult(Artifact("cd" * 32, "video/mp4", 9), {"render": 1.5}, None, rendered_at=21.0)
    farm.writer.advance("A1", left, StageKind.INTERPOLATE, 22.0)
    said = [line.split() for line in run(farm, "show", job_id).stdout.splitlines()]
    assert ["generate", "finished", "CPU", "of", "den", "12", "s"] in said
    assert ["interpolate", "queued", "-", "-"] in said
    assert ["1", "generate", "CPU", "of", "den", "finished", "12", "s", "-", "-"] in said
    shown = json.loads(run(farm, "show", job_id, "--json").stdout)
    assert shown["settings"]["smooth"] == 24
    assert [(one["stage"], one["status"], one["seconds"], one["sha256"]) for one in shown["stages"]] == [
        ("generate", "finished", 12.0, "cd" * 32),
        ("interpolate", "queued", None, None),
    ]
    plain = submitted(farm, picture)
    assert "interpolate" not in run(farm, "show", plain).stdout


def test_several_jobs_at_once_and_one_of_them_wrong(farm: RunningDashboard, picture: Path):
    first, second = submitted(farm, picture), submitted(farm, picture)
    done = run(farm, "cancel", first, "nothing", second, code=1, process=True)
    assert done.stdout.count("is being cancelled") == 2
    assert "no job nothing" in done.stderr
    assert "queued; only failed and cancelled" in run(farm, "retry", first, code=1).stderr
    finish(farm, submitted(farm, picture))


def test_a_finished_clip_is_saved_and_rated_and_the_machines_are_shown(
    farm: RunningDashboard, picture: Path, tmp_path: Path
):
    target = tmp_path / "clip.mp4"
    process = subprocess.Popen(
        [*FARM, "submit", str(picture), "--preset", "draft", "--output", str(target)],
        env=environment(farm),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: farm.reader.jobs().jobs, 30, "the job")
        job = farm.reader.jobs().jobs[0]
        finish(farm, job.id)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert f"Finished (a draft). Saved as {target}." in out
    assert target.read_bytes() == VIDEO
    assert "rated 4 of 5" in run(farm, "rate", job.id, 4, process=True).stdout
    run(farm, "rate", job.id, 6, code=2)
    assert "attic" in run(farm, "nodes").stdout
    assert "CPU of attic" in run(farm, "cards").stdout
    assert "finished (draft)" in run(farm, "jobs").stdout


def test_the_clip_of_a_job_that_nobody_waited_for_is_saved_later(
    farm: RunningDashboard, picture: Path, tmp_path: Path
):
    """Without --output at its submission a clip could be fetched in the browser only."""
    job_id = submitted(farm, picture)
    target = tmp_path / "late.mp4"
    told = run(farm, "show", job_id, "--output", target, code=1).stderr
    assert f"Job {job_id} has no video: it is queued.\n      Ask again when it is finished." in told
    assert not target.exists()
    finish(farm, job_id)
    assert run(farm, "show", job_id, "--output", target).stdout == f"Saved as {target}.\n"
    assert target.read_bytes() == VIDEO
    target.unlink()
    assert json.loads(run(farm, "show", job_id, "--output", target, "--json").stdout)["status"] == "finished"
    assert target.read_bytes() == VIDEO
    assert "submitted by admin" in run(farm, "show", job_id, "--log", "--output", target).stdout
    assert sorted(file.name for file in tmp_path.iterdir() if file.suffix in (".part", ".mp4")) == [
        "late.mp4"
    ]


def test_a_clip_is_made_again_with_its_own_settings_or_with_others(
    farm: RunningDashboard, picture: Path, tmp_path: Path
):
    asked = ["--prompt", "slow zoom", "--seed", 7, "--fps", 12, "--motion", "orbit", "--strength", 0.5]
    first = farm.reader.job(submitted(farm, picture, *asked))
    made = clip(tmp_path / "clip.mp4", describe(first.settings, input_sha256=first.input_sha256, draft=True))

    def again(*more: object) -> tuple[RenderSettings, str]:
        job = farm.reader.job(json.loads(run(farm, "submit", "--again", made, *more, "--json").stdout)["id"])
        assert job.id != first.id
        return job.settings, job.input_sha256

    same = (first.settings, first.input_sha256)
    assert again() == same
    assert again(picture) == same
    assert again("--priority", 3) == same
    assert again("--seed", 8, "--prompt", "") == (replace(first.settings, seed=8, prompt=""), same[1])
    other = tmp_path / "dog.png"
    Image.new("RGB", (320, 240), (20, 20, 240)).save(other)
    run(farm, "submit", "--again", made, other, code=2)
    settings, sent = again(other, "--other-picture")
    assert settings == first.settings
    assert sent != first.input_sha256
    assert again(other, "--seed", 8) == (replace(first.settings, seed=8), sent)
    settings, _ = again("--preset", "draft", "--frames", 4)
    assert settings == replace(first.settings, fps=8, frames=4)


def test_a_picture_may_have_any_name(farm: RunningDashboard, picture: Path, tmp_path: Path):
    """One whose name is no UTF-8, as on old disks, ended in a stack trace, and a folder with it in the midst of its batch."""
    folder = tmp_path / "old disk"
    folder.mkdir()
    named = folder / os.fsdecode(b"caf\xe9.png")
    named.write_bytes(picture.read_bytes())
    run(farm, "submit", named, "--preset", "draft", process=True)
    said = run(farm, "batch", folder, "--preset", "draft", "--prompt", "\u732b", process=True).stdout
    assert "caf\\udce9.png: job " in said
    assert "\\u732b" in run(farm, "jobs", process=True, PYTHONIOENCODING="latin-1").stdout


def test_waiting_for_a_job_that_fails_is_a_failure(farm: RunningDashboard, picture: Path):
    process = subprocess.Popen(
        [*FARM, "submit", str(picture), "--preset", "draft", "--wait", "--json"],
        env=environment(farm),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: farm.reader.jobs().jobs, 30, "the job")
        job = farm.reader.jobs().jobs[0]
        assert farm.writer.give_up_queued(job.id, "No card of this farm can run it.", 5.0)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    assert json.loads(out)["failure"] == "No card of this farm can run it."
    assert "No card of this farm can run it." in err
    assert f"farm retry {job.id}" in err


def test_a_wait_for_a_card_that_does_not_exist_says_so_in_full(
    farm: RunningDashboard, picture: Path, monkeypatch: pytest.MonkeyPatch
):
    """Into a pipe nothing was said of it, in a terminal half a line; and `farm show` said it twice."""
    why = f"No card can run it. {'The nearest is too small. ' * 9}Add a PC with an NVIDIA card."
    job_id = submitted(farm, picture)
    farm.writer.mark_unplaceable({job_id: why})
    assert run(farm, "show", job_id).stdout.count("Add a PC") == 1

    def wait(client: Farm, waiting: str, follow: Callable[[JobView], None]) -> JobView:
        farm.writer.mark_unplaceable({waiting: why})
        follow(client.job(waiting))
        follow(client.job(waiting))
        farm.writer.cancel_queued(waiting, 9.0)
        return client.job(waiting)

    monkeypatch.setattr(Farm, "wait", wait)
    done = run(farm, "submit", picture, "--preset", "draft", "--wait", code=1)
    assert done.stderr.count(f"waits for a card that does not exist yet. {why}\n") == 1


def test_ctrl_c_while_waiting_leaves_the_job_alone_and_says_so(farm: RunningDashboard, picture: Path):
    """Also with a terminal, where the name of a PC in brackets ended the waiting with a trace."""
    with FakeScheduler(farm.data) as scheduler:
        wait_until(lambda: scheduler.connected)
        process = subprocess.Popen(
            [*FARM, "submit", str(picture), "--preset", "draft", "--wait"],
            env=environment(farm) | {"FORCE_COLOR": "1", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            job_id = process.stdout.readline().split()[1]
            scheduler.publish(JobChanged(LiveJob(job_id, "queued", why="All cards of [/attic] are busy.")))
            time.sleep(1.0)  # well into the waiting; the outcome is the same at any moment of it
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 130
    assert "queued: All cards of [/attic] are busy." in err
    assert f"job {job_id} goes on" in err
    assert f"`farm show {job_id}` shows it, and with `--output clip.mp4` saves its clip" in err
    assert "Traceback" not in err
    job = farm.reader.job(job_id)
    assert (job.status, job.cancel_requested) == ("queued", False)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["submit", "PICTURE", "--preset", "drft"], 2, ["no preset called 'drft'", "Did you mean 'draft'"]),
        (["submit", "PICTURE", "--preset", "draft", "--frames", "0"], 2, ["Frames must be between 1 and"]),
        (["submit", "TEXT"], 2, ["not a picture", "PNG, JPEG or WebP"]),
        (["submit", "missing.png"], 2, ["missing.png"]),
        (["submit"], 2, ["No picture is named", "IMAGE", "--again"]),
        (["submit", "PICTURE", "--output", "clip.avi"], 2, ["saved as .avi", ".mp4, .gif or .webp"]),
        # A mistyped folder was told when the render was done, and the clip had nowhere to go.
        (["submit", "PICTURE", "--output", "/gone/clip.mp4"], 2, ["no directory /gone", "another file"]),
        (["submit", "PICTURE", "--output", "."], 2, ["as .: it is a directory", "--output clip.mp4"]),
        (["submit", "PICTURE", "--output", f"{'x' * 300}.mp4"], 2, ["File name too long", "another file"]),
        (["batch", ".", "--out", "/proc/self/clips"], 1, ["Cannot write /proc/self/clips"]),
        (["submit", "PICTURE", "--loop", "2"], 2, ["Only a GIF or WebP", "--output"]),
        (["submit", "PICTURE", "--loop", "-1"], 2, ["loop"]),
        (["show", "nothing", "--loop", "2"], 2, ["Only a GIF or WebP", "--output"]),
        (["show", "nothing", "--output", "clip.avi"], 2, ["saved as .avi", ".mp4, .gif or .webp"]),
        (["show", "nothing", "--output", "/gone/clip.mp4"], 2, ["no directory /gone", "another file"]),
        (
            ["submit", "PICTURE", "--other-picture"],
            2,
            ["needs a clip and a picture", "--again CLIP.mp4 IMAGE"],
        ),
        (["submit", "--again", "missing.mp4"], 2, ["missing.mp4"]),
        (["submit", "--again", "TEXT"], 2, ["notes.txt is not a complete MP4", "Name a clip"]),
        (["submit", "--again", "BARE"], 2, ["bare.mp4 does not say how it was made", "Submit its picture"]),
        (["submit", "--again", "NEWER"], 2, ["by a newer farm", "(lens)", "Update the farm"]),
        (
            ["submit", "--again", "CLIP"],
            2,
            ["head does not have the clip's picture", "--again CLIP.mp4 IMAGE"],
        ),
        (
            ["submit", "--again", "CLIP", "PICTURE"],
            2,
            ["cat.png is not the picture that the clip", "--other-picture"],
        ),
        (["submit", "--again", "CLIP", "TEXT"], 2, ["not a picture", "PNG, JPEG or WebP"]),
        (["submit", "--again", "CLIP", "--frames", "0"], 2, ["Frames must be between 1 and"]),
        (["submit", "--again", "UNKNOWN", "PICTURE", "--seed", "1"], 2, ["no model called 'gone'"]),
        (["submit", "PICTURE", "--frames", "many"], 2, ["frames"]),
        (
            ["submit", "PICTURE", "--preset", "draft", "--smooth", "8"],
            2,
            ["above the clip's own 8 fps, not 8"],
        ),
        (["show", "nothing"], 1, ["There is no job nothing", "farm jobs"]),
        (["jobs", "--head", "http://127.0.0.1:9"], 1, ["http://127.0.0.1:9 does not answer", "farm up"]),
        (["jobs", "--head", "nonsense"], 2, ["no address of a head"]),
        (["jobs", "--token", "wrong"], 1, ["not one of this farm's", "farm token"]),
        (["jobs", "--status", "sleeping"], 2, ["status"]),
        # The name was wrong, and the jobs were blamed.
        (["simulate", "atic"], 2, ["no file atic", "no built-in fleet", "attic, campus"]),
        (["dance"], 2, ["dance"]),
    ],
)
def test_errors_are_a_line_and_a_remedy(
    idle_farm: RunningDashboard,
    picture: Path,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    words: list[str],
):
    text = tmp_path / "notes.txt"
    text.write_text("hello")
    named = {"PICTURE": str(picture), "TEXT": str(text)}
    told = describe(SETTINGS, input_sha256="ab" * 32, draft=True)
    for name, metadata in {
        "BARE": {},
        "CLIP": told,
        "NEWER": told | {"lens": "50 mm"},
        "UNKNOWN": told | {"model": "gone"},
    }.items():
        if name in arguments:
            named[name] = str(clip(tmp_path / f"{name.lower()}.mp4", metadata))
    done = run(idle_farm, *(named.get(word, word) for word in arguments), code=code)
    assert not done.stdout
    for word in words:
        assert word in done.stderr
    assert len(done.stderr.splitlines()) <= 5


def test_a_setting_of_the_environment_that_cannot_be_used_is_named(idle_farm: RunningDashboard):
    """It was told as a fault of the farm's own code, to be reported."""
    done = run(idle_farm, "jobs", code=1, FARM_PORT="eighty", FARM_KEEP_GB="-1")
    assert "FARM_PORT input should be a valid integer" in done.stderr
    assert "FARM_KEEP_GB input should be greater than 0" in done.stderr
    assert "inside the farm's own code" not in done.stderr


def test_a_fault_of_ours_leaves_its_trace_in_a_file_without_tokens(farm: RunningDashboard, tmp_path: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import farm.client\nfarm.client.Farm.jobs = lambda *a, **k: 1 / 0\n"
    )
    token = farm.admin_token
    done = run(
        farm, "jobs", "--token", token, code=1, process=True, PYTHONPATH=f"{broken}{os.pathsep}{Path.cwd()}"
    )
    assert "ZeroDivisionError" in done.stderr
    log = farm.data.logs / "cli.log"
    assert str(log) in done.stderr
    assert "Traceback" in log.read_text()
    assert token not in log.read_text()


def test_a_prompt_cannot_steer_the_terminal(farm: RunningDashboard):
    from farm.cli.show import _plain

    assert _plain("nice\x1b[2J\rcat\u202e") == "nice [2J cat "


def test_a_pc_is_drained_resumed_and_forgotten_by_its_name(farm: RunningDashboard) -> None:
    now = time.time()
    farm.registry.see_node(Node("n1", "attic", "10.0.0.2"), [], now)
    farm.registry.see_node(Node("n2", "cellar", "10.0.0.3"), [], now - 3600)
    farm.registry.see_node(Node("n3", "cellar", "10.0.0.4"), [], now - 3600)
    assert run(farm, "drain", "attic", process=True).stdout == "attic gets no new work.\n"
    assert "drained" in run(farm, "nodes").stdout
    assert farm.reader.node("n1").drained_at is not None
    assert run(farm, "resume", "n1").stdout == "attic gets work again.\n"
    assert "drained" not in run(farm, "nodes").stdout
    assert "was heard from" in run(farm, "forget", "attic", code=1).stderr
    assert "2 PCs are called cellar" in run(farm, "forget", "cellar", code=1).stderr
    assert run(farm, "forget", "n3").stdout == "cellar is forgotten.\n"
    assert run(farm, "forget", "cellar").stdout == "cellar is forgotten.\n"
    assert "There is no PC cellar" in run(farm, "drain", "cellar", code=1).stderr
    assert [node.name for node in farm.reader.nodes()] == ["attic"]
