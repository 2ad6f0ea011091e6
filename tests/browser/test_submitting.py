"""The form: a picture chosen, dropped or pasted becomes a job; what is wrong is said at its field."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import FileChooser, Page, expect

from farm.feed import CardChanged, LiveCard
from farm.model import Job
from tests.browser.conftest import Furnished, Template, Visit, furnished_farm
from tests.browser.farm_in_use import CPU, picture
from tests.waiting import wait_until

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def furnished(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Furnished]:
    """One farm for the whole file: a submit only adds to it."""
    with furnished_farm(template, tmp_path_factory.mktemp("submitting")) as furnished:
        yield furnished


@pytest.fixture
def visit(visit: Visit) -> Visit:
    """At the form."""
    visit.go("/submit")
    return visit


_GIVE = """([name, type, data, target]) => {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  const box = new DataTransfer();
  box.items.add(new File([bytes], name, { type }));
  const element = document.querySelector(target);
  const fire = (kind, make) => element.dispatchEvent(make(kind));
  if (target === "body") {
    fire("paste", (kind) => new ClipboardEvent(kind, { clipboardData: box, bubbles: true, cancelable: true }));
  } else {
    for (const kind of ["dragenter", "dragover", "drop"]) {
      fire(kind, (each) => new DragEvent(each, { dataTransfer: box, bubbles: true, cancelable: true }));
    }
  }
}"""


def choose(page: Page, name: str = "street", data: bytes | None = None) -> None:
    file = {
        "name": f"{name}.jpg",
        "mimeType": "image/jpeg",
        "buffer": picture(name) if data is None else data,
    }
    page.locator("#f-image").set_input_files(file)  # type: ignore[arg-type]  # the keys are those of FilePayload


def newest(furnished: Furnished) -> Job:
    return furnished.farm.reader.jobs(limit=1).jobs[0]


def test_a_chosen_picture_becomes_a_job_that_shows_up_at_once(furnished: Furnished, visit: Visit) -> None:
    page = visit.page
    visit.mark()
    choose(page)
    expect(page.locator("#picture-facts")).to_have_text(
        f"street.jpg: 640 \u00d7 640 px, {round(len(picture('street')) / 1024)}\u202fKiB"
    )
    assert page.locator("#picture").evaluate("(shown) => shown.naturalWidth") == 640
    page.locator("#f-prompt").fill("Cars pass by")
    page.locator("label.preset", has_text="Standard").click()
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#sent")).to_contain_text("The job is in the queue.")
    job = newest(furnished)
    assert (job.preset, job.settings.prompt, job.settings.steps) == ("standard", "Cars pass by", 50)
    assert visit.never_reloaded()
    page.get_by_role("link", name="Open it").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cars pass by")


@pytest.mark.parametrize("target", ["#drop", "body"], ids=["dropped", "pasted"])
def test_a_dropped_or_pasted_picture_is_taken(furnished: Furnished, visit: Visit, target: str) -> None:
    page = visit.page
    data = base64.b64encode(picture("product")).decode()
    page.evaluate(_GIVE, ["bottle.jpg", "image/jpeg", data, target])
    expect(page.locator("#picture-facts")).to_contain_text("bottle.jpg: 640 \u00d7 640 px")
    page.locator("label.preset", has_text="DRAFT").click()
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#sent")).to_contain_text("The job is in the queue.")
    job = newest(furnished)
    assert (job.preset, job.draft) == ("draft", True)
    assert furnished.use.artifacts.read(job.input_sha256) == picture("product")


def test_what_the_farm_refuses_is_said_at_the_field_which_gets_the_focus(
    furnished: Furnished, visit: Visit
) -> None:
    page = visit.page
    visit.expected.extend(["/api/v1/jobs", "/api/v1/plan"])
    before = newest(furnished).id
    choose(page)
    page.locator("#f-prompt").fill("Cars pass by")
    page.get_by_text("Advanced settings").click()
    page.get_by_role("spinbutton", name="Width").fill("513")
    page.get_by_role("spinbutton", name="Frames").fill("0")
    page.get_by_text("Advanced settings").click()  # folded away again: the error must unfold it
    page.get_by_role("button", name="Render").click()
    width = page.get_by_role("spinbutton", name="Width")
    expect(width).to_be_focused()
    expect(width).to_have_attribute("aria-invalid", "true")
    expect(page.locator("#e-width")).to_have_text(
        "Width must be a multiple of 8 pixels, not 513. Nearest: 512 or 520."
    )
    expect(page.locator("#e-frames")).to_contain_text("Frames must be between 1 and 64")
    assert newest(furnished).id == before
    width.fill("512")
    expect(page.locator("#e-width")).to_be_hidden()
    page.get_by_role("spinbutton", name="Frames").fill("")
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#sent")).to_contain_text("The job is in the queue.")


def test_a_file_that_is_no_picture_is_refused_at_the_picture(furnished: Furnished, visit: Visit) -> None:
    page = visit.page
    visit.expected.append("/api/v1/jobs")
    choose(page, data=b"%PDF-1.7 not a picture")
    page.locator("#f-prompt").fill("x")
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#e-image")).to_contain_text("the farm takes PNG, JPEG and WebP")
    expect(page.locator("#f-image")).to_be_focused()


def test_without_a_picture_nothing_is_sent(furnished: Furnished, visit: Visit) -> None:
    visit.page.get_by_role("button", name="Render").click()
    expect(visit.page.locator("#e-image")).to_contain_text("A picture is needed.")


def test_the_keyboard_alone_is_enough(furnished: Furnished, visit: Visit) -> None:
    page = visit.page
    reached: list[str] = []
    choosers: list[FileChooser] = []
    # Listening takes effect in the browser a moment later, so it begins long before the key that opens the chooser.
    visit.listen("filechooser", lambda opened: choosers.append(opened))  # noqa: PLW0108  # Playwright marks its handlers

    def tab_to(wanted: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            here = page.evaluate(
                "document.activeElement.name || document.activeElement.id || document.activeElement.textContent"
            )
            reached.append(here)
            if here == wanted:
                return
        pytest.fail(f"Tab never reached {wanted}: {reached}")

    tab_to("image")
    ring = page.evaluate("getComputedStyle(document.querySelector('#drop > label')).outlineStyle")
    assert ring == "solid", "the hidden file field shows its focus on the drop zone"
    page.keyboard.press("Enter")
    wait_until(lambda: page.evaluate("1") and choosers, what="the file chooser to open")
    file = {"name": "walk.jpg", "mimeType": "image/jpeg", "buffer": picture("person")}
    choosers[0].set_files(file)  # type: ignore[arg-type]  # the keys are those of FilePayload
    tab_to("prompt")
    page.keyboard.type("He walks on")
    tab_to("preset")
    page.keyboard.press("ArrowDown")
    tab_to("send")
    page.keyboard.press("Enter")
    expect(page.locator("#sent")).to_contain_text("The job is in the queue.")
    job = newest(furnished)
    assert (job.settings.prompt, job.preset) == ("He walks on", "standard")


@pytest.mark.parametrize("names", [("street",), ("street", "person")], ids=["one picture", "the last of two"])
def test_pressing_render_again_after_no_answer_makes_one_job(
    furnished: Furnished, visit: Visit, names: tuple[str, ...]
) -> None:
    """The answer may be lost although the job was stored: the second press must repeat the key, not the job.

    Regression: the last picture of a batch was sent again without the batch's name, and so refused for ever.
    """
    page = visit.page
    visit.expected.append("/api/v1/jobs")
    keys: list[str] = []

    def swallow(route, request) -> None:
        if request.method != "POST":
            route.continue_()
            return
        keys.append(request.headers["idempotency-key"])
        if len(keys) == len(names):
            route.fetch()  # it arrives and is stored, and its answer is thrown away
            route.abort()
        else:
            route.continue_()

    page.route("**/api/v1/jobs", swallow)
    before = len(furnished.farm.reader.jobs(limit=100).jobs)
    files = [{"name": f"{n}.jpg", "mimeType": "image/jpeg", "buffer": picture(n)} for n in names]
    page.locator("#f-image").set_input_files(files)  # type: ignore[arg-type]  # the keys are those of FilePayload
    page.locator("#f-prompt").fill("Once")
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#submit-error")).to_contain_text("The farm did not answer.")
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#sent")).to_contain_text("The job is in the queue.")
    assert keys[-2] == keys[-1]
    jobs = furnished.farm.reader.jobs(limit=100).jobs
    assert len(jobs) == before + len(names)
    assert len({job.batch for job in jobs[: len(names)]}) == 1
    assert (jobs[0].batch is None) == (len(names) == 1)


def test_a_half_filled_form_survives_what_happens_meanwhile(furnished: Furnished, visit: Visit) -> None:
    """Regression: a refresh of the page must leave the form's words, choice and picture alone."""
    page = visit.page
    choose(page)
    page.locator("#f-prompt").fill("Half a sen")
    page.locator("label.preset", has_text="Quality").click()
    page.evaluate("document.querySelector('.page-head').append('to be gone after the refresh')")
    page.evaluate("import('/static/live.js').then((live) => live.refresh())")
    expect(page.locator(".page-head")).not_to_contain_text("to be gone")
    assert page.locator("#f-prompt").input_value() == "Half a sen"
    assert page.locator('input[name="preset"]:checked').get_attribute("value") == "quality"
    assert page.locator("#f-image").evaluate("(field) => field.files.length") == 1


def test_the_settings_sent_are_those_that_were_typed(furnished: Furnished, visit: Visit) -> None:
    page = visit.page
    choose(page)
    page.locator("label.preset", has_text="DRAFT").click()
    page.get_by_text("Advanced settings").click()
    for label, value in (
        ("Width", "640"),
        ("Height", "384"),
        ("Rate", "12"),
        ("Seed", "7"),
        ("Strength", "1.5"),
    ):
        page.get_by_role("spinbutton", name=label).fill(value)
    page.get_by_role("combobox", name="Camera move").select_option("pan-left")
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#sent")).to_contain_text("The job is in the queue.")
    found = newest(furnished).settings
    assert (found.width, found.height, found.fps, found.seed, found.motion, found.strength) == (
        640,
        384,
        12,
        7,
        "pan-left",
        1.5,
    )


def test_every_change_of_the_settings_asks_the_planner(furnished: Furnished, visit: Visit) -> None:
    page = visit.page
    best = page.locator("#plan-best")
    expect(best).to_contain_text("on RTX 3060 of desk, peak")
    expect(page.locator(".forecast")).to_have_count(3)
    preview = best.inner_text()
    page.locator("label.preset", has_text="Quality").click()
    expect(best).not_to_have_text(preview)
    expect(page.locator(".forecast", has_text="RTX 2060")).to_contain_text("it is quality work")
    expect(best).to_contain_text("Faster: the preset")
    page.locator("label.preset", has_text="Stable Video Diffusion").click()
    expect(best).to_contain_text("No card of this farm can run it")
    page.locator("label.preset", has_text="DRAFT").click()
    expect(page.locator(".forecast", has_text="Ryzen 5 3600")).to_contain_text("measured on this card")


def test_the_planner_is_asked_again_when_a_card_comes_and_when_the_farm_answers_again(
    furnished: Furnished, visit: Visit
) -> None:
    """Regression: "No card has joined yet" stayed for good, and after one lost answer no preset was asked about any more."""
    page = visit.page
    visit.expected.append("/api/v1/plan")
    best, can = page.locator("#plan-best"), page.locator("#can-preview")
    page.route("**/api/v1/plan", lambda route: route.abort())
    page.reload(wait_until="domcontentloaded")
    expect(best).to_have_text("The farm does not answer; nothing can be foretold.")
    page.unroute("**/api/v1/plan")
    page.route("**/api/v1/plan", lambda route: route.fulfill(json=[]))
    expect(best).to_contain_text("No card has joined yet")
    expect(can).to_have_text("No card yet")
    page.unroute("**/api/v1/plan")
    furnished.scheduler.publish(CardChanged(LiveCard(CPU.id, "node-desk", "desk", CPU.name, "idle")))
    expect(best).to_contain_text("on RTX 3060 of desk")
    expect(can).to_contain_text("RTX 3060")


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (
            503,
            {"detail": "The disk is full.", "remedy": "Free 2 GB with `farm models`.", "errors": []},
            "The disk is full. Free 2 GB with farm models.",
        ),
        (
            422,
            {
                "detail": "x",
                "errors": [{"field": "settings.hue", "message": "No hue.", "remedy": "Leave it out."}],
            },
            "No hue. Leave it out.",
        ),
        (
            422,
            {
                "detail": "x",
                "errors": [{"field": "settings.steps", "message": "Too many steps.", "remedy": ""}],
            },
            "These settings cannot be rendered yet.",
        ),
    ],
    ids=["trouble", "of no field", "of a field"],
)
def test_what_the_planner_refuses_is_said_as_it_is(
    furnished: Furnished, visit: Visit, status: int, answer: dict[str, object], said: str
) -> None:
    """Regression: every refusal read "These settings cannot be rendered yet."."""
    page = visit.page
    visit.expected.append("/api/v1/plan")
    page.route("**/api/v1/plan", lambda route: route.fulfill(status=status, json=answer))
    page.locator("label.preset", has_text="Quality").click()
    expect(page.locator("#plan-best")).to_have_text(said)


def test_the_planner_leads_to_the_sign_in_page_when_the_session_has_ended(
    furnished: Furnished, visit: Visit
) -> None:
    page = visit.page
    visit.expected.append("/api/v1/plan")
    page.route("**/api/v1/plan", lambda route: route.fulfill(status=401, json={"detail": "Revoked."}))
    page.reload(wait_until="commit")
    page.wait_for_url("**/signin?next=%2Fsubmit")


def test_each_preset_says_which_cards_can_do_it(furnished: Furnished, visit: Visit) -> None:
    can = visit.page.locator("#can-preview")
    expect(can).to_contain_text("RTX 3060")
    expect(can).not_to_contain_text("RTX 2060")  # its PC does not answer
    away = visit.page.locator(".forecast", has_text="RTX 2060")
    expect(away.locator(".status")).to_have_text("Not answering now")
    expect(away.locator(".status")).to_have_attribute("data-tone", "wait")
    expect(away).to_contain_text("RTX 2060 does not answer.")
    svd = visit.page.locator("#can-svd")
    expect(svd).to_have_text("No card here can run it")
    assert "not installed" in (svd.get_attribute("title") or "")


def test_the_model_tells_its_licence_and_the_size_of_its_download(furnished: Furnished, visit: Visit) -> None:
    page = visit.page
    page.get_by_text("Advanced settings").click()
    page.get_by_role("combobox", name="Model").select_option("svd-xt")
    expect(page.locator("#model-facts")).to_have_text(
        "Stable Video Diffusion XT: 4.2\u202fGiB to download; licence: Stability AI Community License"
    )


def test_many_pictures_make_as_many_jobs(furnished: Furnished, visit: Visit) -> None:
    page = visit.page
    before = newest(furnished).id
    files = [
        {"name": f"{n}.jpg", "mimeType": "image/jpeg", "buffer": picture(n)}
        for n in ("street", "person", "product")
    ]
    page.locator("#f-image").set_input_files(files)  # type: ignore[arg-type]  # the keys are those of FilePayload
    expect(page.locator("#pictures li")).to_have_count(3)
    page.get_by_role("button", name="Remove person.jpg").click()
    expect(page.locator("#picture-facts")).to_contain_text("2 pictures")
    data = base64.b64encode(picture("person", 480)).decode()
    page.evaluate(_GIVE, ["more.jpg", "image/jpeg", data, "body"])
    expect(page.locator("#pictures li")).to_have_count(3)
    page.locator("label.preset", has_text="DRAFT").click()
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#sent")).to_contain_text("3 jobs are in the queue.")
    made = []
    for job in furnished.farm.reader.jobs(limit=10).jobs:
        if job.id == before:
            break
        made.append(job.input_sha256)
    sent = [picture("street"), picture("product"), picture("person", 480)]
    assert made[::-1] == [hashlib.sha256(one).hexdigest() for one in sent]
    page.get_by_role("link", name="See the jobs").click()
    expect(page.locator(".job-row")).to_have_count(3)
    expect(page.get_by_role("link", name="Remove: batch")).to_be_visible()


def test_one_bad_picture_of_many_is_named_and_the_good_ones_before_it_are_sent(
    furnished: Furnished, visit: Visit
) -> None:
    page = visit.page
    visit.expected.append("/api/v1/jobs")
    files = [
        {"name": "good.jpg", "mimeType": "image/jpeg", "buffer": picture("street")},
        {"name": "bad.jpg", "mimeType": "image/jpeg", "buffer": b"%PDF-1.7 not a picture"},
        {"name": "later.jpg", "mimeType": "image/jpeg", "buffer": picture("person")},
    ]
    page.locator("#f-image").set_input_files(files)  # type: ignore[arg-type]  # the keys are those of FilePayload
    page.locator("label.preset", has_text="DRAFT").click()
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#e-image")).to_contain_text("bad.jpg: ")
    expect(page.locator("#sent")).to_contain_text("The job is in the queue.")
    expect(page.locator("#pictures li")).to_have_count(2)
    first = newest(furnished)
    page.get_by_role("button", name="Remove bad.jpg").click()
    page.get_by_role("button", name="Render").click()
    wait_until(lambda: newest(furnished).id != first.id, what="the job of the last picture")
    assert newest(furnished).batch == first.batch


def test_a_job_is_made_again_with_one_thing_changed(furnished: Furnished, visit: Visit) -> None:
    before = furnished.jobs["finished"]
    page = visit.go(f"/jobs/{before.id}")
    page.get_by_role("link", name="Render again with").click()
    expect(page.locator("#f-prompt")).to_have_value(before.settings.prompt)
    assert (
        page.locator("#picture").evaluate("(shown) => shown.decode().then(() => shown.naturalWidth)") == 640
    )
    page.get_by_text("Advanced settings").click()
    page.get_by_role("spinbutton", name="Steps").fill("20")
    page.get_by_role("button", name="Render").click()
    expect(page.locator("#sent")).to_contain_text("The job is in the queue.")
    job = newest(furnished)
    assert job.settings == replace(before.settings, steps=20)
    assert job.input_sha256 == before.input_sha256
    expect(page.locator("#seed-locked")).to_have_text("seed locked")
    page = visit.go("/submit")  # regression: each later clip had that job's seed
    expect(page.locator("#seed-lock")).not_to_be_checked()
    expect(page.locator("#f-seed")).to_have_value("")
    expect(page.locator("#seed-locked")).to_be_hidden()


def test_a_locked_seed_stays_and_an_unlocked_one_is_new_each_time(furnished: Furnished, visit: Visit) -> None:
    page = visit.page

    def render() -> int:
        last = newest(furnished).id
        page.get_by_role("button", name="Render").click()
        wait_until(lambda: newest(furnished).id != last, what="the job")
        expect(page.locator("#sent")).to_contain_text("The job is in the queue.")
        return newest(furnished).settings.seed

    choose(page)
    page.locator("label.preset", has_text="DRAFT").click()
    page.get_by_text("Advanced settings").click()
    assert render() != render()
    page.get_by_role("checkbox", name="Lock the seed").check()
    locked = render()
    assert page.locator("#f-seed").input_value() == str(locked)
    assert render() == locked
    page.reload()
    expect(page.locator("#f-seed")).to_have_value(str(locked))
    expect(page.locator("#seed-lock")).to_be_checked()
    expect(page.locator("#seed-locked")).to_be_visible()  # the settings are folded away
    page.get_by_text("Advanced settings").click()
    page.get_by_role("checkbox", name="Lock the seed").uncheck()
    expect(page.locator("#f-seed")).to_have_value("")
    page.reload()
    expect(page.locator("#f-seed")).to_have_value("")
