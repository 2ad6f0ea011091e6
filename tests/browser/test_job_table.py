"""The table of jobs: sorting, choosing many, and asking things of them at once."""

import pytest
from playwright.sync_api import Route, expect

from farm.store.requests import RequestKind
from tests.browser.conftest import Furnished, Visit
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


def pick(visit: Visit, furnished: Furnished, *names: str) -> None:
    for name in names:
        visit.page.locator(f"#job-{furnished.jobs[name].id} [name=pick]").check()


def test_the_sort_lives_in_the_address_and_goes_from_page_to_page(furnished: Furnished, visit: Visit) -> None:
    page = visit.go("/jobs?status=finished")
    page.get_by_role("link", name="Ended").click()
    assert page.url.endswith("/jobs?status=finished&sort=ended")
    expect(page.locator("th[aria-sort]")).to_contain_text("Ended")
    ended = page.locator(".job-row td:nth-child(7) time").evaluate_all(
        "(all) => all.map((one) => Number(one.dataset.at))"
    )
    assert len(ended) == 7
    assert ended == sorted(ended, reverse=True)
    page.get_by_role("combobox", name="Order").select_option("rating")
    page.get_by_role("button", name="Search").click()
    expect(page.locator(".job-row")).to_have_count(1)
    expect(page.locator(".job-row")).to_contain_text("4 ★")


def test_several_jobs_are_cancelled_at_once_after_a_question(furnished: Furnished, visit: Visit) -> None:
    page = visit.go("/jobs")
    expect(page.locator("#bulk")).to_be_hidden()
    pick(visit, furnished, "running", "queued", "finished")
    expect(page.locator("#bulk-count")).to_have_text("3 chosen")
    page.locator("#bulk").get_by_role("button", name="Cancel").click()
    asked = page.get_by_role("dialog", name="Cancel 2 jobs?")
    expect(asked).to_contain_text("1 of them in the middle of the render")
    asked.get_by_role("button", name="Keep it").click()
    assert furnished.use.requests.waiting()[1:] == []  # only the one that the farm began with
    visit.expected.append("/api/v1/jobs/")
    page.route("**/cancel", lambda route: route.abort())
    page.locator("#bulk").get_by_role("button", name="Cancel").click()
    asked.get_by_role("button", name="Cancel 2 jobs").click()
    expect(page.locator("#bulk-said")).to_contain_text(
        "2 got no answer: The farm did not answer: this may or"
    )
    expect(page.get_by_role("checkbox", name="Choose all on this page")).to_be_focused()
    page.unroute("**/cancel")
    pick(visit, furnished, "running", "queued", "finished")
    page.locator("#bulk").get_by_role("button", name="Cancel").click()
    asked.get_by_role("button", name="Cancel 2 jobs").click()
    expect(page.locator("#bulk-said")).to_have_text(
        "2 jobs will be cancelled; 1 left alone: they have ended already."
    )
    reader = furnished.farm.reader
    assert [
        reader.job(furnished.jobs[name].id).cancel_requested for name in ("running", "queued", "finished")
    ] == [
        True,
        True,
        False,
    ]
    expect(page.locator(f"#job-{furnished.jobs['queued'].id}")).to_contain_text("Cancelling")
    expect(page.locator("[name=pick]:checked")).to_have_count(0)


def test_failed_and_cancelled_jobs_are_tried_again_and_waiting_ones_moved(
    furnished: Furnished, visit: Visit
) -> None:
    page = visit.go("/jobs")
    pick(visit, furnished, "failed", "cancelled")
    page.get_by_role("button", name="Try again", exact=True).first.click()
    expect(page.locator("#bulk-said")).to_have_text("2 jobs will be tried again.")
    pick(visit, furnished, "queued")
    page.get_by_role("spinbutton", name="Priority").fill("25")
    page.get_by_role("button", name="Set").click()
    expect(page.locator("#bulk-said")).to_have_text("1 job will be moved.")
    asked = [(one.kind, one.job_id, one.value) for one in furnished.use.requests.waiting()][1:]
    assert {(kind, job_id, value) for kind, job_id, value in asked} == {
        (RequestKind.RETRY, furnished.jobs["failed"].id, None),
        (RequestKind.RETRY, furnished.jobs["cancelled"].id, None),
        (RequestKind.PRIORITY, furnished.jobs["queued"].id, 25),
    }


def test_a_choice_survives_a_refresh_and_shift_takes_all_between(furnished: Furnished, visit: Visit) -> None:
    page = visit.go("/jobs")
    boxes = page.locator("[name=pick]")
    boxes.nth(1).check()
    boxes.nth(4).click(modifiers=["Shift"])
    expect(page.locator("#bulk-count")).to_have_text("4 chosen")
    page.evaluate("import('/static/live.js').then((live) => live.refresh())")
    new = furnished.use.queue("person", "preview", "Pushes the others down")
    page.evaluate("import('/static/live.js').then((live) => live.refresh())")
    expect(page.locator(f"#job-{new.id}")).to_be_visible()
    expect(page.locator("#bulk-count")).to_have_text("4 chosen")
    page.get_by_role("checkbox", name="Choose all on this page").check()
    expect(page.locator("#bulk-count")).to_have_text("14 chosen")
    page.get_by_role("button", name="Clear the choice").click()
    expect(page.locator("#bulk")).to_be_hidden()


def test_a_clip_is_stepped_through_frame_by_frame(furnished: Furnished, visit: Visit) -> None:
    page = visit.go(f"/jobs/{furnished.jobs['finished'].id}")
    wait_until(lambda: page.locator("#film").evaluate("(film) => film.readyState") >= 2, what="the clip")
    page.get_by_role("button", name="Frame on").click()
    expect(page.locator("#film-frame")).to_have_text("frame 2 of 16")
    page.locator("h1").click()
    for frame in (3, 4, 5):
        page.keyboard.press(".")
        expect(page.locator("#film-frame")).to_have_text(f"frame {frame} of 16")
    page.keyboard.press(",")
    expect(page.locator("#film-frame")).to_have_text("frame 4 of 16")


def test_a_good_preview_is_made_in_quality_with_the_same_picture_and_seed(
    furnished: Furnished, visit: Visit
) -> None:
    """Pressed again after no answer, it made a second job, and the first try was said to have changed nothing."""
    before = furnished.jobs["retried"]
    page = visit.go(f"/jobs/{before.id}")
    visit.expected.append("/api/v1/jobs")
    keys: list[str] = []

    def swallow(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.fetch()  # it arrives and is stored, and its answer is thrown away
            route.abort()
        else:
            route.continue_()

    page.route("**/api/v1/jobs", swallow)
    count = len(furnished.farm.reader.jobs(limit=100).jobs)
    page.get_by_role("button", name="Make it in quality").click()
    expect(page.locator("#act-error")).to_contain_text("this may or may not have been done")
    page.get_by_role("button", name="Make it in quality").click()
    page.wait_for_url(lambda url: not url.endswith(before.id))
    assert keys[0] == keys[1]
    assert len(furnished.farm.reader.jobs(limit=100).jobs) == count + 1
    expect(page.locator("dl.settings").first).to_contain_text("768 \u00d7 768 px")
    made = furnished.farm.reader.jobs(limit=1).jobs[0]
    assert page.url.endswith(made.id)
    assert (made.preset, made.input_sha256, made.settings.seed, made.settings.prompt) == (
        "quality",
        before.input_sha256,
        before.settings.seed,
        before.settings.prompt,
    )


def test_the_story_of_a_job_is_told(furnished: Furnished, visit: Visit) -> None:
    page = visit.go(f"/jobs/{furnished.jobs['retried'].id}")
    page.get_by_text("Everything that happened").click()
    said = page.locator(".timeline li").all_inner_texts()
    assert ["Given to a card" in line for line in said].count(True) == 2
    assert any("Lost" in line and "Nothing was heard of RTX 2060" in line for line in said)
    expect(page.locator(".attempt").first).to_contain_text("4.7\u202fGiB measured, 5.1\u202fGiB predicted")
