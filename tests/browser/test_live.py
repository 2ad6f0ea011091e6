"""What moves by itself: progress, the finished clip, a lost connection, cancelling."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Route, expect

from dashboard import stream
from dashboard.app import create_app
from farm.feed import CardChanged, Expected, JobChanged, LiveCard, LiveJob, QueueChanged, QueuePlace
from farm.model import Attempt, Coming
from farm.planning.kinds import kind_of
from tests.browser.conftest import Furnished, Visit, until, visiting
from tests.browser.farm_in_use import CPU, RTX_3060
from tests.integration.dashboard_server import RunningDashboard
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


def _live(furnished: Furnished) -> tuple[Attempt, LiveJob]:
    job = furnished.jobs["running"]
    (attempt,) = furnished.farm.reader.attempts(job.id)
    return attempt, LiveJob(
        job.id, "running", done=24, total=50, seconds_per_step=1.5, eta_s=39.0, phase="running", preview=4
    )


@pytest.mark.parametrize("where", ["/", "/jobs", "/cards"])
def test_progress_moves_without_a_reload(furnished: Furnished, visit: Visit, where: str) -> None:
    page = visit.go(where)
    visit.mark()
    _, live = _live(furnished)
    block = page.locator(f'[data-progress="{live.id}"]').first
    expect(block).to_contain_text("step 23 of 50")
    furnished.scheduler.publish(JobChanged(live))
    expect(block).to_contain_text("Rendering: step 24 of 50, 1.5\u202fs per step, about 39\u202fs left")
    assert block.locator("progress").evaluate("(bar) => bar.position") == pytest.approx(24 / 50)
    assert visit.never_reloaded()


def test_the_job_page_goes_from_preview_to_a_clip_that_plays(furnished: Furnished, visit: Visit) -> None:
    attempt, live = _live(furnished)
    page = visit.go(f"/jobs/{live.id}")
    visit.mark()
    look = page.locator("figure img[data-preview]")
    expect(look).to_have_attribute("src", f"/api/v1/jobs/{live.id}/preview?n=3")
    furnished.use.preview(furnished.jobs["running"], "street")
    furnished.scheduler.publish(JobChanged(live))
    expect(look).to_have_attribute("src", f"/api/v1/jobs/{live.id}/preview?n=4")
    assert look.evaluate("(shown) => shown.decode().then(() => shown.naturalWidth)") == 320
    furnished.use.finish(attempt, "person")
    furnished.scheduler.publish(JobChanged(replace(live, status="finished", done=50)))
    film = page.locator("video.film")
    expect(film).to_be_visible()
    expect(page.locator("#standing")).to_contain_text("Finished")
    until(page, "document.querySelector('video.film').readyState >= 2")
    assert film.evaluate("(video) => [video.videoWidth, video.videoHeight]") == [512, 512]
    assert film.evaluate("(video) => video.duration") == pytest.approx(2.0, abs=0.01)
    film.evaluate("(video) => { video.muted = true; return video.play(); }")
    until(page, "document.querySelector('video.film').currentTime > 0.2")
    film.evaluate("(video) => { video.currentTime = 1.5; }")  # needs an answer to a Range request
    until(page, "!document.querySelector('video.film').seeking")
    assert film.evaluate("(video) => video.error") is None
    # Only a clip that was there when the page was opened had its frames counted.
    expect(page.locator("#film-frame")).to_have_text(re.compile(r"frame \d+ of 16"))
    assert visit.never_reloaded()


def test_a_playing_clip_plays_on_through_a_refresh(furnished: Furnished, visit: Visit) -> None:
    page = visit.go(f"/jobs/{furnished.jobs['finished'].id}")
    film = page.locator("video.film")
    film.evaluate("(video) => { video.muted = true; window.film = video; return video.play(); }")
    page.get_by_role("radio", name="2 of 5").check(force=True)
    expect(page.locator("#rated")).to_have_text("2 of 5")
    assert furnished.farm.reader.job(furnished.jobs["finished"].id).rating == 2
    page.evaluate("import('/static/live.js').then((live) => live.refresh())")
    assert page.evaluate("window.film === document.querySelector('video.film') && !window.film.paused")
    assert page.get_by_role("radio", name="2 of 5").is_checked()


def test_the_place_in_the_queue_and_the_time_follow_the_feed(furnished: Furnished, visit: Visit) -> None:
    job = furnished.use.queue("person", "preview", "How long will it take")
    page = visit.go(f"/jobs/{job.id}")
    visit.mark()
    now = page.evaluate("Date.now() / 1000")
    for position, minutes in ((7, 30), (6, 25)):
        done = Expected(now + 60 * minutes, now + 50 * minutes, now + 80 * minutes)
        place = QueuePlace(job.id, kind_of(job), position, done)
        furnished.scheduler.publish(QueueChanged(now, waiting=9, placed=9, places=(place,)))
        standing = page.locator("#standing .eta")
        expect(standing).to_contain_text(f"Number {position} in the queue, done about")
        shown = standing.locator("time[data-soon]")
        expect(shown).to_have_count(3)
        expect(shown.first).to_have_attribute("data-soon", str(done.at))
        expect(shown.first).not_to_contain_text("UTC")
    assert visit.never_reloaded()


def test_what_was_told_of_the_queue_before_the_page_listened_is_shown(
    furnished: Furnished, visit: Visit
) -> None:
    """Between the page's making and its listening the news were lost: it kept the old place, and no time, until the next."""
    job = furnished.use.queue("person", "preview", "How long will it take")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    visit.page.route("**/events", hold)
    page = visit.go(f"/jobs/{job.id}")
    expect(page.locator("#standing .eta")).to_have_text("Number 4 in the queue")
    wait_until(lambda: page.evaluate("true") and held, what="the stream to be asked for")
    now = page.evaluate("Date.now() / 1000")
    place = QueuePlace(job.id, kind_of(job), 7, Expected(now + 1800, now + 1700, now + 2000))
    furnished.scheduler.publish(QueueChanged(now, waiting=9, placed=9, places=(place,)))
    live = furnished.farm.server.config.app.state.parts.live  # type: ignore[union-attr]  # the app itself
    wait_until(lambda: live.told and live.told.queue.made_at == now, what="the dashboard to hear of it")
    held[0].continue_()
    expect(page.locator("#standing .eta")).to_contain_text("Number 7 in the queue, done about")


def test_a_new_job_of_somebody_else_appears(furnished: Furnished, visit: Visit) -> None:
    page = visit.go("/jobs")
    visit.mark()
    job = furnished.use.queue("person", "preview", "From another browser")
    furnished.scheduler.publish(
        JobChanged(LiveJob(job.id, "queued", why="Waits for RTX 3060, which is busy."))
    )
    expect(page.locator(f"#job-{job.id}")).to_contain_text("Waits for RTX 3060, which is busy.")
    assert visit.never_reloaded()


def test_a_card_that_falls_silent_is_shown_so(furnished: Furnished, visit: Visit) -> None:
    page = visit.go("/cards")
    furnished.scheduler.publish(
        CardChanged(LiveCard(CPU.id, CPU.node_id, "desk", CPU.name, "not answering", silent_s=12.0))
    )
    tile = page.locator(f'[data-card="{CPU.id}"]')
    expect(tile).to_contain_text("Not answering")
    expect(tile).to_contain_text("since")


def test_weights_on_their_way_are_seen_coming(furnished: Furnished, visit: Visit) -> None:
    page = visit.go("/cards")
    visit.mark()
    node = next(node for node in furnished.farm.reader.nodes() if node.id == CPU.node_id)
    for done, line in ((430_000_000, "svd 43 %, 570 MB to go"), (440_000_000, "svd 44 %, 560 MB to go")):
        cards = [replace(CPU, coming=(Coming("svd", done, 1_000_000_000),))]
        furnished.farm.registry.see_node(node, cards, furnished.farm.reader.nodes()[0].last_seen or 0.0)
        furnished.scheduler.publish(
            CardChanged(LiveCard(CPU.id, CPU.node_id, "desk", CPU.name, "idle", fetching=(line,)))
        )
        expect(page.locator(f"#node-{CPU.node_id}")).to_contain_text(line)
    assert visit.never_reloaded()


def test_cancelling_asks_first_and_names_the_consequence(furnished: Furnished, visit: Visit) -> None:
    page = visit.go("/jobs")
    job = furnished.jobs["running"]
    row = page.locator(f"#job-{job.id}")
    row.get_by_role("button", name="Cancel").click()
    asked = page.get_by_role("dialog", name="Cancel this job?")
    expect(asked).to_contain_text(f"The render on {RTX_3060.name} stops at its next step")
    page.keyboard.press("Escape")
    expect(asked).to_be_hidden()
    assert not furnished.farm.reader.job(job.id).cancel_requested
    row.get_by_role("button", name="Cancel").click()
    asked.get_by_role("button", name="Cancel the job").click()
    expect(row).to_contain_text("Cancelling")
    assert furnished.farm.reader.job(job.id).cancel_requested
    expect(
        row.locator(".job-name")
    ).to_be_focused()  # the button is gone; the focus fell to the top of the page


def test_what_one_tab_does_the_other_shows(furnished: Furnished, visit: Visit) -> None:
    page = visit.go("/jobs")
    other = page.context.new_page()
    other.goto(f"{visit.base_url}/jobs/{furnished.jobs['queued'].id}", wait_until="domcontentloaded")
    expect(other.locator("#updated")).to_contain_text("Updated")
    page.bring_to_front()
    page.locator(f"#job-{furnished.jobs['queued'].id}").get_by_role("button", name="Cancel").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the job").click()
    expect(page.locator(f"#job-{furnished.jobs['queued'].id}")).to_contain_text("Cancelling")
    other.bring_to_front()
    expect(other.locator("#standing")).to_contain_text("Cancelling")
    other.close()


_HIDDEN = """
    let hidden = true;
    Object.defineProperty(document, "hidden", { get: () => hidden });
    window.show = () => { hidden = false; document.dispatchEvent(new Event("visibilitychange")); };
    const plain = window.EventSource;
    window.streams = 0;
    window.EventSource = class extends plain { constructor(...all) { super(...all); window.streams += 1; } };
"""


def test_a_page_that_nobody_has_looked_at_opens_no_stream(shown: Furnished, browser: Browser) -> None:
    """Six jobs opened in tabs behind took all six connections that a browser allows to a host, and the farm hung."""
    with visiting(
        browser, shown.farm.base_url, locale="en-GB"
    ) as visit:  # a browser of its own for the script
        visit.sign_in(shown.farm)
        visit.page.add_init_script(_HIDDEN)
        page = visit.go("/jobs")
        expect(page.locator("#updated")).to_contain_text("Updated")
        page.evaluate("dispatchEvent(new Event('online'))")
        assert page.evaluate("window.streams") == 0
        with page.expect_request(lambda asked: asked.url.endswith("/api/v1/events")):
            page.evaluate("window.show()")
        assert page.evaluate("window.streams") == 1


def test_a_session_that_has_ended_leads_to_the_sign_in_page(shown: Furnished, browser: Browser) -> None:
    """The page said for ever that the connection was lost and that it tried again."""
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        visit.expected.extend(["/api/v1/events", "/api/v1/jobs/"])  # a list's pictures come late
        page = visit.go("/jobs")
        expect(page.locator("#updated")).to_contain_text("Updated")
        page.context.clear_cookies()
        page.evaluate("dispatchEvent(new Event('online'))")
        page.wait_for_url("**/signin?next=**")


def test_a_line_without_a_beat_is_said_to_be_lost(
    furnished: Furnished, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head that loses its power closes no connection: the page said that it was up to date until TCP gave up."""
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.05)
    with visiting(
        browser, furnished.farm.base_url, locale="en-GB"
    ) as visit:  # a browser of its own for the clock
        visit.sign_in(furnished.farm)
        visit.page.clock.install()
        page = visit.go("/jobs")
        updated = page.locator("#updated")
        expect(updated).to_contain_text("Updated")
        for _ in range(2):
            page.evaluate(
                "new Promise((beat) => new EventSource('/api/v1/events').addEventListener('beat', beat))"
            )
            page.clock.fast_forward(40_000)
            expect(updated).to_contain_text("Updated")
        expect(page.locator("#connection")).to_be_empty()
        page.route("**/api/v1/events", lambda _: None)  # a head that does not answer
        monkeypatch.setattr(stream, "HEARTBEAT_S", 3600.0)

        def lost() -> bool:
            page.clock.fast_forward(46_000)
            return "lost" in updated.inner_text()

        wait_until(lost, what="the lost line to be said")


def _held(page: Page) -> list[Route]:
    """Where the page's next fetch of itself will wait to be let go; later ones go through."""
    held: list[Route] = []
    page.route("**/jobs", lambda route: route.continue_() if held else held.append(route))
    return held


def _hold(page: Page, held: list[Route]) -> Route:
    """The fetch, once it has come."""
    wait_until(
        lambda: page.evaluate("true") and held, what="the page to be fetched"
    )  # a word brings the news
    return held[0]


def test_a_job_that_ends_is_said_to_have_ended_before_the_page_is_there_again(
    furnished: Furnished, visit: Visit
) -> None:
    """What a worker reports is to be seen within 500 ms: the word waited for the page, which is fetched once a second at most."""
    attempt, live = _live(furnished)
    page = visit.go("/jobs")
    expect(page.locator("#updated")).to_contain_text("Updated")
    held = _held(page)
    row = page.locator(f"#job-{live.id}")
    furnished.use.finish(attempt, "person")
    furnished.scheduler.publish(JobChanged(replace(live, status="finished", done=50)))
    expect(row.locator(".status")).to_have_text("Finished")
    expect(row.locator(".status")).to_have_attribute("data-tone", "good")
    expect(row).to_have_attribute("data-status", "running")  # the page itself is still on its way
    _hold(page, held).continue_()
    expect(row).to_have_attribute("data-status", "finished")


def test_the_page_is_fetched_quickly_and_on_a_busy_farm_no_oftener_than_once_a_second(
    furnished: Furnished, visit: Visit
) -> None:
    """A job that ended just after a fetch was shown up to a second late."""
    page = visit.go("/jobs")
    expect(page.locator("#updated")).to_contain_text("Updated")
    fetches = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/jobs')).map((one) => one.startTime)"

    def five() -> bool:
        furnished.scheduler.publish(QueueChanged(0.0, waiting=1, placed=0))
        return len(page.evaluate(fetches)) >= 5

    wait_until(five, what="five fetches")
    starts = page.evaluate(fetches)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert 250 < gaps[0] < 900
    assert all(gap > 900 for gap in gaps[2:4])


def test_who_waits_for_a_refresh_sees_what_was_stored_when_he_asked(
    furnished: Furnished, visit: Visit
) -> None:
    """While another fetch ran, the wait was over at once, and whoever waited went on with the old page."""
    page = visit.go("/jobs")
    expect(page.locator("#updated")).to_contain_text("Updated")
    held = _held(page)
    page.evaluate("import('/static/live.js').then((live) => { window.first = live.refresh(); })")
    first = _hold(page, held)
    old = first.fetch()
    new = furnished.use.queue("person", "preview", "Stored after the first fetch")
    page.evaluate(
        """(id) => import('/static/live.js').then((live) => {
             window.second = live.refresh().then(() => document.getElementById(`job-${id}`) !== null);
           })""",
        new.id,
    )
    first.fulfill(response=old)
    assert page.evaluate("window.second") is True


def test_a_failed_job_can_be_tried_again(furnished: Furnished, visit: Visit) -> None:
    """What went wrong before stayed on the page for ever; in a list it was told with a button "Keep it"."""
    job_id = furnished.jobs["failed"].id
    path = f"/api/v1/jobs/{job_id}/retry"
    visit.expected.append(path)
    visit.page.route(f"**{path}", lambda route: route.abort())
    page = visit.go("/jobs")
    row = page.locator(f"#job-{job_id}")
    row.get_by_role("button", name="Try again").click()
    told = page.get_by_role("dialog", name="That did not work")
    expect(told).to_contain_text("this may or may not have been done")
    expect(told.get_by_role("button")).to_have_text(["Close"])
    told.get_by_role("button", name="Close").click()
    expect(row.get_by_role("button", name="Try again")).to_be_focused()
    page = visit.go(f"/jobs/{job_id}")
    expect(page.locator("#standing")).to_contain_text("Ask for a smaller size or fewer frames")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#act-error")).to_be_visible()
    page.unroute(f"**{path}")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#act-error")).to_be_hidden()
    wait_until(lambda: [r.kind for r in furnished.use.requests.waiting()][-1:] == ["retry"], what="the wish")


def test_a_scheduler_that_goes_away_is_said_and_its_return_too(furnished: Furnished, visit: Visit) -> None:
    page = visit.go("/")
    expect(page.locator("#state-word")).to_have_text("Rendering")
    furnished.scheduler.__exit__(None, None, None)
    expect(page.locator("#state-word")).to_have_text("Scheduler not answering")
    furnished.scheduler.__enter__()
    expect(page.locator("#state-word")).to_have_text("Rendering")


@contextmanager
def _again(farm: RunningDashboard, port: int) -> Iterator[None]:
    """Another dashboard over the same data on the same port."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    app = create_app(farm.data, farm.settings)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        app.state.parts.live.close_soon()
        server.should_exit = True
        thread.join(10)
        listening.close()
        assert not thread.is_alive()


def test_a_lost_connection_is_said_and_mends_itself(furnished: Furnished, visit: Visit) -> None:
    """What happened while nobody could tell the page must be on it after the return, without a reload."""
    farm = furnished.farm
    visit.expected.extend(["/api/v1/events", "/api/v1/jobs/", "/jobs"])  # a list's pictures come late
    attempt, live = _live(furnished)
    page = visit.go("/jobs")
    visit.mark()
    updated = page.locator("#updated")
    expect(updated).to_contain_text("Updated")
    row = page.locator(f"#job-{live.id}")
    expect(row).to_have_attribute("data-status", "running")
    port = int(farm.base_url.rsplit(":", 1)[1])
    farm.server.config.app.state.parts.live.close_soon()  # type: ignore[union-attr]  # the app itself
    farm.server.should_exit = True
    expect(updated).to_have_text("Connection lost, trying again")
    expect(page.locator("#connection")).to_have_text("Connection lost, trying again")
    wait_until(lambda: not farm.server.servers or not any(s.is_serving() for s in farm.server.servers))
    furnished.use.finish(attempt, "person")
    with _again(farm, port):
        expect(row).to_have_attribute("data-status", "finished", timeout=15_000)
        expect(updated).to_contain_text("Updated")
        assert visit.never_reloaded()
        # A screen reader says that it was lost and is back, and not the time of every minute.
        expect(page.get_by_role("status").and_(page.locator("#connection"))).to_have_text("Connection back")
        assert updated.evaluate("(line) => line.closest('[role=status], [aria-live]')") is None
        page.goto("about:blank")  # lets go of the event stream, so that the server can stop
