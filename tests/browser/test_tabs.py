"""Visits share a tab, and nothing else."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import visiting
from tests.integration.dashboard_server import RunningDashboard

pytestmark = pytest.mark.browser


def test_a_visit_finds_nothing_of_the_one_before(empty: RunningDashboard, browser: Browser) -> None:
    heard: list[str] = []
    with visiting(browser, empty.base_url, color_scheme="dark", reduced_motion="no-preference") as visit:
        visit.sign_in(empty)
        page = visit.go("/settings")
        page.evaluate("localStorage.left = sessionStorage.left = window.name = 'left'")
        page.route("**/healthz", lambda route: route.fulfill(body="left"))
        visit.listen("request", lambda request: heard.append(request.url))
        page.context.new_page()
        first = page
    heard.clear()
    with visiting(browser, empty.base_url) as visit:
        assert visit.page is first, "otherwise there is nothing to see here"
        page = visit.go("/settings")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to the farm")
        assert page.evaluate("[localStorage.length, sessionStorage.length, window.name]") == [0, 0, ""]
        assert page.evaluate("fetch('/healthz').then((answer) => answer.text())") != "left"
        media = "[matchMedia('(prefers-color-scheme: light)'), matchMedia('(prefers-reduced-motion: reduce)')].map((one) => one.matches)"
        assert page.evaluate(media) == [True, True]
        assert page.context.pages == [page]
        assert heard == []


def test_a_tab_in_which_a_test_failed_is_not_used_again(empty: RunningDashboard, browser: Browser) -> None:
    tabs: list[Page] = []

    def failing() -> None:
        with visiting(browser, empty.base_url) as visit:
            tabs.append(visit.page)
            raise RuntimeError("as a failed assertion would")

    with pytest.raises(RuntimeError, match="as a failed"):
        failing()
    assert tabs[0].is_closed()
    with visiting(browser, empty.base_url) as visit:
        assert visit.page is not tabs[0]
