"""Real headless Chromium, one for the whole run, in which a visit finds nothing of the ones before it."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from farm.feed import Snapshot
from farm.model import Job
from tests.browser import tabs
from tests.browser.chromium import CHROMIUM_ARGS, QUIET, find_chromium
from tests.browser.farm_in_use import FarmInUse, fill
from tests.integration.dashboard_server import FakeScheduler, RunningDashboard, running_dashboard
from tests.waiting import wait_until

WAIT_MS = 10_000
PHONE = {"width": 390, "height": 844}


def chromium_path() -> str:
    """Where the system's Chromium is. In CI a missing one fails; elsewhere these tests are skipped, and say so."""
    found = find_chromium()
    if found:
        return found
    message = "The browser tests need Chromium: `apt install chromium`."
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = chromium_path()
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=QUIET, args=CHROMIUM_ARGS, env=os.environ | {"QUIET_CHROMIUM": path}
        )
        yield chromium
        tabs.forget()
        chromium.close()


@dataclass
class Visit:
    """One person's browser. `errors` are console errors and uncaught ones, `foreign` requests to other hosts.

    An answer of 4xx is an error on the console too; a test that provokes one puts its path into `expected`.
    """

    page: Page
    base_url: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    _listening: list[tuple[Any, Callable[..., Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(WAIT_MS)
        self.listen("console", self._on_console)
        self.listen("pageerror", lambda error: self.errors.append(str(error)))
        self.listen("request", self._on_request)

    def listen(self, event: str, handler: Callable[[Any], Any]) -> None:
        """Has the tab's events told to `handler` until the visit ends."""
        heard: Any = event  # Playwright's `on` names each event by itself
        self.page.on(heard, handler)
        self._listening.append((heard, handler))

    def leave(self) -> None:
        """The tab is no longer this visit's."""
        for event, handler in self._listening:
            self.page.remove_listener(event, handler)
        self._listening.clear()

    def go(self, path: str) -> Page:
        """Opens a page; its scripts have run, its pictures may still be on their way."""
        self.page.goto(self.base_url + path, wait_until="domcontentloaded")
        return self.page

    def open_link(self, farm: RunningDashboard) -> None:
        """Opens the link that `farm up` prints, as a person does; it leads to the first page."""
        self.page.goto(farm.signin_url, wait_until="domcontentloaded")

    def sign_in(self, farm: RunningDashboard) -> None:
        """Signed in as by the link, but no page is opened: most tests look at another one than the first, and each costs half a second."""
        answer = self.page.context.request.get(farm.signin_url, max_redirects=0)
        assert answer.status == HTTPStatus.SEE_OTHER

    def mark(self) -> None:
        """Leaves a mark that a reload would wipe out."""
        self.page.evaluate("window.marked = true")

    def never_reloaded(self) -> bool:
        return bool(self.page.evaluate("window.marked === true"))

    def check(self) -> None:
        assert not self.errors
        assert not self.foreign

    def _on_console(self, message: Any) -> None:
        if message.type not in ("error", "warning"):
            return
        path = urlsplit(message.location.get("url", "")).path
        # The browser fetches a tab's icon some time after all the rest, and tells no page when: the head may have gone by then, or it was
        # the icon of what the visit before had left in the tab.
        if path in ("/favicon.ico", "/static/favicon.svg"):
            return
        if not any(path.startswith(start) for start in self.expected):
            self.errors.append(f"{message.text} ({path})")

    def _on_request(self, request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and f"{url.scheme}://{url.netloc}" != self.base_url:
            self.foreign.append(request.url)


def until(page: Page, true: str) -> None:
    """Waits until the JavaScript expression holds. Playwright's own `wait_for_function` uses eval, which our CSP forbids."""
    wait_until(lambda: page.evaluate(true), what=true)


@contextmanager
def visiting(browser: Browser, base_url: str, **options: Any) -> Iterator[Visit]:
    """One test's browser; at the end nothing may have gone wrong in it.

    It is the tab that the visit before has left, emptied; one that a test failed in is never used again. What a tab cannot change later
    (`options` other than those of `tabs.take`) takes a new browser.
    """
    shared = options.keys() <= {"color_scheme", "reduced_motion"}
    page = (
        tabs.take(browser, **options) if shared else browser.new_context(**(tabs.USUAL | options)).new_page()
    )
    clean = False
    try:
        visit = Visit(page, base_url)
        yield visit
        visit.check()
        visit.leave()
        if shared and page.url.startswith(base_url):
            tabs.give_back(page, base_url)
            clean = True
    finally:
        if not clean:
            page.context.close()


@dataclass
class Furnished:
    """A farm in the middle of its work; `jobs` has one of each status by name."""

    farm: RunningDashboard
    scheduler: FakeScheduler
    use: FarmInUse
    jobs: dict[str, Job]


@dataclass
class Template:
    """The data directory of a filled farm, to be copied: filling one takes seconds, copying one milliseconds."""

    folder: Path
    snapshot: Snapshot
    jobs: dict[str, Job]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    folder = tmp_path_factory.mktemp("template")
    with running_dashboard(folder) as farm:
        snapshot, jobs = fill(farm)
    return Template(folder, snapshot, jobs)


@contextmanager
def furnished_farm(template: Template, folder: Path) -> Iterator[Furnished]:
    """A dashboard with a day's work behind it, and its scheduler."""
    shutil.copytree(template.folder, folder, dirs_exist_ok=True)
    with running_dashboard(folder) as farm:
        use, jobs = FarmInUse(farm), template.jobs
        with FakeScheduler(farm.data, template.snapshot) as scheduler:
            live = farm.server.config.app.state.parts.live
            wait_until(lambda: live.connected, what="the dashboard to follow the feed")
            yield Furnished(farm, scheduler, use, jobs)


@pytest.fixture(scope="session")
def shown(
    template: Template, tmp_path_factory: pytest.TempPathFactory, browser: Browser
) -> Iterator[Furnished]:
    """One furnished farm for all tests that only look."""
    with furnished_farm(template, tmp_path_factory.mktemp("shown")) as furnished:
        yield furnished


@pytest.fixture
def furnished(template: Template, tmp_path: Path) -> Iterator[Furnished]:
    """A furnished farm that the test may change."""
    with furnished_farm(template, tmp_path) as furnished:
        yield furnished


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDashboard]:
    """A farm on its first day, for tests that leave it so: no job, no card."""
    with running_dashboard(tmp_path_factory.mktemp("empty")) as farm, FakeScheduler(farm.data):
        yield farm


@pytest.fixture
def visit(furnished: Furnished, browser: Browser) -> Iterator[Visit]:
    """Signed in on a farm that the test may change."""
    with visiting(browser, furnished.farm.base_url) as visit:
        visit.sign_in(furnished.farm)
        yield visit
