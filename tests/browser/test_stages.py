"""A job of two stages as a person sees it: which card did what, how far the second one is, and the settings that ask for one."""

import time
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from farm.feed import JobChanged, LiveJob
from farm.ids import new_id
from farm.model import Artifact, Attempt, Job, MemoryPlan, StageKind
from farm.states import AttemptMove
from farm.store.claims import Assignment
from farm.store.writer import StageResult
from tests.browser.conftest import Furnished, Visit
from tests.browser.farm_in_use import CPU, RTX_2060, picture

pytestmark = pytest.mark.browser


def at_the_second_stage(furnished: Furnished) -> tuple[Job, Attempt]:
    """A smoothed job that the one card has generated and the other interpolates."""
    use, writer = furnished.use, furnished.farm.writer
    job = use.queue("street", "smooth", "Clouds drift", ago_s=30)
    first = use.start(job, RTX_2060, ago_s=28)
    left = Artifact("cd" * 32, "video/mp4", 300_000)
    at = time.time() - 8
    writer.advance(
        first.id, StageResult(left, {"load": 5.0, "denoise": 15.0}, 4.4, at), StageKind.INTERPOLATE, at
    )
    claim = Assignment(new_id(), job.id, CPU.node_id, CPU.id, CPU.name, MemoryPlan(), StageKind.INTERPOLATE)
    (second,) = writer.assign([claim], at + 1)
    writer.progress(second.id, AttemptMove.RUN, at + 1, 1)
    return job, second


def test_the_page_of_a_smoothed_job_tells_each_stage_and_moves_with_the_second(
    furnished: Furnished, visit: Visit
) -> None:
    job, second = at_the_second_stage(furnished)
    live = LiveJob(
        job.id, "running", done=3, total=24, card_id=CPU.id, card_name=CPU.name, attempt_id=second.id,
        phase="running", stage="interpolate",
    )  # fmt: skip
    furnished.scheduler.publish(JobChanged(live))
    page = visit.go(f"/jobs/{job.id}")
    stages = page.locator("#stages > li")
    expect(stages).to_have_count(2)
    expect(stages.nth(0)).to_contain_text("1. Generate")
    expect(stages.nth(0)).to_contain_text("Finished")
    expect(stages.nth(0)).to_contain_text(f"{RTX_2060.name}20\u202fs1 attempt")
    expect(stages.nth(1)).to_contain_text("2. Interpolate")
    expect(stages.nth(1)).to_contain_text("Interpolating")
    expect(stages.nth(1)).to_contain_text(CPU.name)
    expect(page.locator(".attempts .attempt-head h3").filter(has_text="Interpolate on")).to_have_count(1)
    expect(page.locator(".side dl.settings")).to_contain_text(
        "8 frames at 8 fps, smoothed to 24 at 24 fps: 1.0\u202fs"
    )
    line = page.locator(f'[data-progress="{job.id}"] .progress-line')
    expect(line).to_have_text("Interpolating: frame 3 of 24")
    visit.mark()
    furnished.scheduler.publish(JobChanged(replace(live, done=12, seconds_per_step=0.25, eta_s=3.0)))
    expect(line).to_have_text("Interpolating: frame 12 of 24, 0.3\u202fs per frame, about 3.0\u202fs left")
    assert visit.never_reloaded()


def test_the_form_asks_for_smoothing_and_shows_what_is_wrong_with_it(
    furnished: Furnished, visit: Visit
) -> None:
    visit.expected.extend(["/api/v1/jobs", "/api/v1/plan"])
    page = visit.go("/submit")
    page.get_by_text("Advanced settings").click()
    smooth = page.get_by_label("Smooth to")
    expect(smooth).to_have_attribute("placeholder", "as made")
    page.locator("label.preset", has_text="Smooth").click()
    expect(smooth).to_have_attribute("placeholder", "24")
    page.locator("label.preset", has_text="no diffusion").click()
    smooth.fill("8")
    page.set_input_files("#f-image", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": picture("street")})
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#e-smooth")).to_contain_text("Smooth must be above the clip's own 8 fps, not 8.")
    smooth.fill("24")
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#sent")).to_contain_text("The job is in the queue.")
    newest = furnished.farm.reader.jobs(limit=1).jobs[0]
    assert (newest.settings.model, newest.settings.smooth) == ("animatic", 24)
