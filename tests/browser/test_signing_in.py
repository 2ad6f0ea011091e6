"""Getting in: by the link, by the form, and what a person sees who may not."""

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import visiting
from tests.integration.dashboard_server import RunningDashboard

pytestmark = pytest.mark.browser


def test_the_link_opens_the_farm(empty: RunningDashboard, browser: Browser) -> None:
    with visiting(browser, empty.base_url) as visit:
        visit.open_link(empty)
        expect(visit.page).to_have_url(f"{empty.base_url}/")
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("No cards")


def test_a_stranger_is_asked_to_sign_in_and_comes_back_to_the_page(
    empty: RunningDashboard, browser: Browser
) -> None:
    with visiting(browser, empty.base_url) as visit:
        page = visit.go("/jobs?status=failed")
        expect(page.get_by_role("heading", level=1)).to_have_text("Sign in to the farm")
        page.get_by_label("Token").fill(empty.admin_token)
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{empty.base_url}/jobs?status=failed")


def test_a_wrong_token_is_told_so_with_a_remedy(empty: RunningDashboard, browser: Browser) -> None:
    with visiting(browser, empty.base_url) as visit:
        visit.expected.append("/signin")
        page = visit.go("/signin?token=made-up")
        expect(page.get_by_role("alert")).to_contain_text("The token is not one of this farm's.")
        expect(page.get_by_role("alert")).to_contain_text("farm token")
        expect(page.get_by_label("Token")).to_be_focused()


def test_signing_out_closes_the_farm(empty: RunningDashboard, browser: Browser) -> None:
    with visiting(browser, empty.base_url) as visit:
        visit.open_link(empty)
        visit.page.get_by_role("button", name="Sign out").click()
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Sign in to the farm")
        visit.go("/cards")
        expect(visit.page.get_by_role("heading", level=1)).to_have_text("Sign in to the farm")
