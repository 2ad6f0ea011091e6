"""Every page under axe-core: no fault that it calls serious or critical, in both colours."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import Furnished, visiting
from tests.browser.test_pages import PAGES, path_of
from tests.integration.dashboard_server import RunningDashboard
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

AXE = (Path(__file__).with_name("vendor") / "axe.min.js").read_text(encoding="utf-8")


def serious(page: Page) -> list[str]:
    """What axe-core finds serious or critical, each with the elements. It is put in by the debugger: our CSP lets no foreign script in."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert found["passes"], "axe looked at nothing"
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:160] for node in one['nodes']]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]


def test_axe_finds_what_is_wrong(shown: Furnished, browser: Browser) -> None:
    """The check itself can fail: a picture without a text for it is found."""
    with visiting(browser, shown.farm.base_url) as visit:
        visit.sign_in(shown.farm)
        visit.page.evaluate(
            "document.body.append(Object.assign(document.createElement('img'), {src: '/static/favicon.svg'}))"
        )
        assert any(fault.startswith("image-alt") for fault in serious(visit.page))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_fault(shown: Furnished, browser: Browser, scheme: str) -> None:
    with visiting(browser, shown.farm.base_url, color_scheme=scheme) as visit:
        visit.go("/signin")
        assert serious(visit.page) == []
        visit.sign_in(shown.farm)
        for name in PAGES:
            page = visit.go(path_of(name, shown))
            if name in ("submit", "again"):
                wait_until(lambda page=page: page.locator(".forecast").count(), what="the planner's answer")
                page.locator("details.advanced").evaluate("(folded) => { folded.open = true; }")
            if name == "farm":
                page.locator("#throughput").scroll_into_view_if_needed()
                wait_until(lambda page=page: page.locator(".uplot").count(), what="the chart")
            if name == "jobs":
                page.locator("[name=pick]").first.check()
            assert serious(page) == [], name


def test_an_empty_farm_has_no_serious_fault(empty: RunningDashboard, browser: Browser) -> None:
    with visiting(browser, empty.base_url) as visit:
        visit.sign_in(empty)
        for path in ("/", "/submit", "/jobs", "/cards", "/benchmarks", "/settings"):
            assert serious(visit.go(path)) == [], path
