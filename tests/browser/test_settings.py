"""The Settings page's main job: an admin sets the farm, sees who set what, and is asked before anything is deleted."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from farm.auth import Role, Scope, TokenKind, new_token
from farm.passwords import hash_password
from farm.store.engine import open_engine
from farm.store.users import Users
from tests.browser.conftest import Furnished, Template, Visit, furnished_farm, visiting
from tests.browser.test_accessible import serious, serious_in_both_schemes

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def farm(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Furnished]:
    """One farm for the tests here, each of which sets something else."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FARM_LEASE_S", "45")
        with furnished_farm(template, tmp_path_factory.mktemp("settings")) as furnished:
            yield furnished


@pytest.fixture
def visit(farm: Furnished, browser: Browser) -> Iterator[Visit]:
    with visiting(browser, farm.farm.base_url) as visit:
        visit.sign_in(farm.farm)
        yield visit


def test_tiers_are_set_with_the_keyboard_and_the_other_tab_shows_it(farm: Furnished, visit: Visit) -> None:
    page = visit.go("/settings")
    visit.mark()
    form = page.locator('form[data-settings="tiers"]')
    form.get_by_role("radio", name="soft").focus()
    page.keyboard.press("ArrowDown")
    expect(form.get_by_role("radio", name="strict")).to_be_checked()
    page.keyboard.press("Enter")
    expect(form.locator(".saved")).to_have_text("Saved")
    expect(page.locator("#from-tiers")).to_contain_text("set by admin just now")
    assert visit.never_reloaded()
    assert farm.farm.server.config.app.state.parts.in_force().tiers == "strict"
    other = page.context.new_page()
    other.goto(f"{farm.farm.base_url}/settings")
    expect(other.locator('form[data-settings="tiers"]').get_by_role("radio", name="strict")).to_be_checked()


def test_a_limit_that_would_delete_clips_asks_first(farm: Furnished, visit: Visit) -> None:
    page = visit.go("/settings")
    days = page.get_by_label("Keep for")
    days.fill("1")
    expect(page.locator("#would-go")).to_contain_text("Within ten minutes picture and clip of 1 job would go")
    page.locator('form[data-settings="keep"]').get_by_role("button", name="Save").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("picture and clip of 1 job would go")
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    assert farm.farm.server.config.app.state.parts.in_force().keep_days is None
    page.locator('form[data-settings="keep"]').get_by_role("button", name="Save").click()
    dialog.get_by_role("button", name="Save and delete").click()
    expect(page.locator('form[data-settings="keep"] .saved')).to_have_text("Saved")
    expect(page.locator("#going")).to_have_text("picture and clip of 1 job, within ten minutes")
    assert serious(page) == []
    days.fill("")
    page.locator('form[data-settings="keep"]').get_by_role("button", name="Save").click()
    expect(page.locator("main")).to_contain_text("none: everything is kept")
    visit.expected.append("/api/v1/settings/retention")  # regression: "Failed to fetch" was shown
    page.route("**/api/v1/settings/retention?*", lambda route: route.abort())
    days.fill("1")
    days.press("Enter")
    notice = page.locator('form[data-settings="keep"] .notice')
    expect(notice).to_have_text("The farm does not answer. Try again when it is back.")


def test_the_largest_picture_is_set_and_the_form_for_a_new_clip_says_so(
    farm: Furnished, visit: Visit
) -> None:
    page = visit.go("/settings")
    field = page.get_by_label("Largest picture")
    expect(field).to_have_value("")
    expect(field).to_have_attribute("placeholder", "32")
    field.fill("8.5")
    field.press("Enter")
    expect(page.locator('form[data-settings="upload"] .saved')).to_have_text("Saved")
    expect(page.locator("#from-max_upload_mib")).to_contain_text("set by admin just now")
    assert farm.farm.server.config.app.state.parts.in_force().max_upload_mib == 8.5
    assert serious(page) == []
    expect(visit.go("/submit").locator("#submit")).to_contain_text("up to 8.5 MiB each")
    visit.expected.append("/api/v1/settings")
    page = visit.go("/settings")
    page.get_by_label("Largest picture").fill("0.2")
    page.get_by_label("Largest picture").press("Enter")
    expect(page.locator("#e-max_upload_mib")).to_contain_text("greater than or equal to 1")
    assert farm.farm.server.config.app.state.parts.in_force().max_upload_mib == 8.5


def test_what_is_wrong_is_said_at_its_field_and_what_the_environment_says_is_locked(
    farm: Furnished, visit: Visit
) -> None:
    visit.expected.append("/api/v1/settings")
    page = visit.go("/settings")
    lease = page.get_by_label("Lost after")
    expect(lease).to_be_disabled()
    expect(lease).to_have_value("45")
    expect(page.locator("#from-lease_s")).to_contain_text("Set by FARM_LEASE_S where farm up was started")
    most = page.get_by_label("At the most")
    most.fill("-5")
    most.press("Enter")
    expect(page.locator("#e-keep_gb")).to_contain_text("greater than 0")
    expect(most).to_be_focused()
    assert farm.farm.server.config.app.state.parts.in_force().keep_gb is None


def test_accounts_sign_in_by_password_and_the_pages_are_accessible(farm: Furnished, browser: Browser) -> None:
    """The password form, and Settings with accounts and tokens in its tables, for an admin and for one who may only look."""
    name = "bea"
    engine = open_engine(farm.farm.data.database_url, writes=True)
    Users(engine).add(name, Role.VIEWER, hash_password("a long enough one"), 1.0)
    engine.dispose()
    with visiting(browser, farm.farm.base_url, color_scheme="dark") as visit:
        visit.expected.append("/signin")
        page = visit.go("/settings")
        expect(page.get_by_label("Name")).to_be_focused()
        page.keyboard.type(name)
        page.keyboard.press("Tab")
        page.keyboard.type("a wrong one")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_be_visible()
        assert serious_in_both_schemes(page) == []
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill("a long enough one")
        page.keyboard.press("Enter")
        page.wait_for_url("**/settings")
        expect(page.locator("h1")).to_have_text("Settings")
        expect(page.get_by_role("radio", name="soft")).to_be_disabled()
        expect(page.locator("#tokens")).to_have_count(0)
        visit.sign_in(farm.farm)
        page = visit.go("/settings")
        expect(page.locator("#users")).to_contain_text(name)
        expect(page.locator("#tokens")).to_contain_text("admin")
        assert serious_in_both_schemes(page) == []


def test_an_admin_ends_a_token_and_is_told_when_it_is_the_way_in_of_this_browser(
    farm: Furnished, visit: Visit
) -> None:
    farm.farm.registry.add_token(new_token(), TokenKind.API, "wall", time.time(), scope=Scope.READ)
    page = visit.go("/settings")
    row = page.locator("#tokens tr", has_text="wall")
    page.get_by_role("button", name="End admin").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This browser may have signed in with it, and is then signed out too")
    dialog.get_by_role("button", name="Keep it").click()
    row.get_by_role("button", name="End wall").click()
    expect(dialog).to_contain_text("Whatever uses it is refused from now on. It cannot be brought back.")
    expect(dialog).not_to_contain_text("This browser")
    dialog.get_by_role("button", name="End the token").click()
    expect(row).to_have_count(0)
    expect(dialog).to_be_hidden()
    assert serious(page) == []


def test_a_star_keeps_a_clip_and_a_second_press_lets_it_go(farm: Furnished, visit: Visit) -> None:
    page = visit.go(f"/jobs/{farm.jobs['finished'].id}")
    star = page.locator('[data-do="star"]')
    expect(star).to_have_text("☆ Keep")
    star.focus()
    page.keyboard.press("Enter")
    expect(star).to_have_text("★ Kept")
    assert farm.farm.reader.job(farm.jobs["finished"].id).starred
    expect(star).to_be_focused()
    page.keyboard.press("Enter")
    expect(star).to_have_text("☆ Keep")
    assert not farm.farm.reader.job(farm.jobs["finished"].id).starred


def test_the_forms_fit_a_phone(farm: Furnished, browser: Browser) -> None:
    with visiting(browser, farm.farm.base_url, viewport={"width": 390, "height": 844}) as visit:
        visit.sign_in(farm.farm)
        page = visit.go("/settings")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        boxes = page.locator("form.knobs input[type=number], form.knobs button").evaluate_all(
            "(all) => all.map((one) => one.getBoundingClientRect().toJSON())"
        )
        assert boxes
        for at in boxes:
            assert at["width"] > 0, "it is shown"
            assert at["left"] >= 0
            assert at["right"] <= 390
            assert at["height"] >= 36, "a finger finds it"
