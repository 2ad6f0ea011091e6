"""What was done, over HTTP: throughput, sorted lists, the evaluation's results, and figures for Prometheus."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter

from dashboard.words import THIN
from dashboard.work import today
from farm.catalogue.article import article
from farm.clock import Clock
from farm.feed import LiveCard, LiveJob, Snapshot
from farm.model import Artifact, Card, CardKind, FailureClass, MemoryPlan, Node, Tier
from farm.own_bench import BenchResult
from farm.states import JobMove
from farm.store.benches import Benches
from farm.store.claims import Assignment
from farm.store.engine import open_engine
from farm.store.requests import NewJob, Requests
from farm.store.writer import Result
from tests import plain_http
from tests.integration.dashboard_server import FakeScheduler, RunningDashboard, running_dashboard
from tests.integration.test_cli_client import run
from tests.storage import SETTINGS
from tests.waiting import wait_until

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
GPU = Card("GPU-1", "n1", CardKind.CUDA, "RTX 3060", 12.0, 11.2, Tier.QUALITY)


class Noon(Clock):
    """It is always noon."""

    def now(self) -> float:
        return NOON

    def monotonic(self) -> float:
        return NOON


@dataclass
class Day:
    """A farm with one card, and jobs put into its past."""

    farm: RunningDashboard
    made: int = 0

    def get(self, path: str) -> httpx.Response:
        return plain_http.get(f"{self.farm.base_url}{path}", headers=self.farm.headers)

    def job(self, ended: float, *, fails: bool = False, rating: int | None = None) -> str:
        """A job that took 100 s and ended then; its id."""
        self.made += 1
        requests = Requests(open_engine(self.farm.data.database_url, writes=True))
        settings = replace(SETTINGS, frames=16, steps=50)
        picture = Artifact(f"{self.made:064x}", "image/png", 3)
        job, _ = requests.submit(NewJob(settings, Tier.PREVIEW, draft=False, picture=picture), ended - 120)
        name = f"A{self.made}"
        claim = Assignment(name, job.id, "n1", GPU.id, GPU.name, MemoryPlan())
        assert self.farm.writer.assign([claim], ended - 100)
        if fails:
            self.farm.writer.fail(name, FailureClass.INTERNAL, "It broke.", ended, then=JobMove.GIVE_UP)
        else:
            result = Result("ab" * 32, "cd" * 32, {"denoise": 75.0}, 4.0, ended)
            self.farm.writer.finish(name, result, ended)
        if rating:
            assert requests.rate(job.id, rating)
        return job.id


@pytest.fixture
def day(tmp_path: Path) -> Iterator[Day]:
    with running_dashboard(tmp_path, clock=Noon()) as farm:
        farm.registry.see_node(Node("n1", "attic", "10.0.0.2"), [GPU], NOON - 40 * 24 * HOUR)
        yield Day(farm)


def test_throughput_of_a_window_with_its_parts(day: Day) -> None:
    day.job(NOON - 30 * HOUR)
    day.job(NOON - 2 * HOUR + 60)
    day.job(NOON - 600)
    day.job(NOON - 500, fails=True)
    (card,) = day.get("/api/v1/stats/throughput?window=24h").json()
    assert (card["card_id"], card["card_name"], card["node_name"]) == ("GPU-1", "RTX 3060", "attic")
    assert (card["clips"], card["until"] - card["since"], card["part_s"]) == (2, 24 * HOUR, HOUR)
    assert card["clips_per_hour"] == pytest.approx(2 / 24)
    assert card["frames_per_minute"] == pytest.approx(32 / 24 / 60)
    assert card["seconds_per_step"] == pytest.approx(1.5)
    assert card["success_rate"] == pytest.approx(2 / 3)
    assert card["utilization"] == pytest.approx(300 / (24 * HOUR))
    assert card["wh_per_clip"] is None
    assert card["parts"] == [
        {"at": NOON - 2 * HOUR, "clips_per_hour": 1.0},
        {"at": NOON - HOUR, "clips_per_hour": 1.0},
    ]
    (week,) = day.get("/api/v1/stats/throughput?window=7d&card=GPU-1").json()
    assert week["clips"] == 3


def test_what_a_clip_took_of_energy_is_told_where_a_card_told_it(day: Day) -> None:
    """The figure stood in every answer and was never worked out; a job's was on no page."""
    told, silent = day.job(NOON - 600), day.job(NOON - 400)
    day.farm.writer.drew("A1", 4.3)
    (card,) = day.get("/api/v1/stats/throughput?window=24h").json()
    assert (card["clips"], card["wh_per_clip"]) == (2, 4.3)
    assert "4.3\u202fWh each" in day.get("/").text
    page = day.get(f"/jobs/{told}").text
    assert page.count("4.3\u202fWh<") == 2  # the job's, and its one attempt's
    assert "\u202fWh<" not in day.get(f"/jobs/{silent}").text
    shown = run(day.farm, "show", told).stdout
    assert "Energy" in shown
    assert "4.30 Wh" in shown
    assert "Energy" not in run(day.farm, "show", silent).stdout


def test_an_empty_window_has_no_figures(day: Day) -> None:
    day.job(NOON - 30 * HOUR)
    (card,) = day.get("/api/v1/stats/throughput?window=1h").json()
    figures = ("clips_per_hour", "frames_per_minute", "seconds_per_step", "success_rate", "utilization")
    assert [card[name] for name in figures] == [None] * 5
    assert card["parts"] == []


def test_an_unknown_card_or_window_is_refused(day: Day) -> None:
    assert day.get("/api/v1/stats/throughput?card=GPU-9").status_code == 404
    assert day.get("/api/v1/stats/throughput?window=2h").status_code == 422


def test_lists_are_sorted_and_paged_without_gap_or_repeat(day: Day) -> None:
    """The ends lie in another order than the submits, some at the same moment; the ratings are few."""
    ends = [NOON - HOUR * (1 + (7 * n) % 5) for n in range(12)]
    ids = [day.job(end, rating=(n % 5) + 1 if n % 2 else None) for n, end in enumerate(ends)]

    def listed(sort: str, limit: int = 2) -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            page = day.get(f"/api/v1/jobs?sort={sort}&limit={limit}{cursor}").json()
            found += [job["id"] for job in page["jobs"]]
            if page["cursor"] is None:
                return found
            cursor = f"&cursor={page['cursor']}"

    assert listed("newest") == ids[::-1]
    assert listed("oldest") == ids
    assert listed("ended") == [ids[n] for n in sorted(range(12), key=lambda n: (ends[n], n), reverse=True)]
    rated = [n for n in range(12) if n % 2]
    assert listed("rating") == [ids[n] for n in sorted(rated, key=lambda n: (n % 5, n), reverse=True)]
    assert day.get("/api/v1/jobs?sort=sideways").status_code == 422


def test_the_days_counts_link_to_the_jobs_they_count(day: Day) -> None:
    """Of the day that the head's own time zone says it is."""
    begin = today(NOON)
    assert 0 <= NOON - begin < 24 * HOUR
    in_time = [day.job(begin + 1), day.job(NOON - 1)]
    day.job(begin - 1)
    failed = day.job(NOON - 5, fails=True)
    first = day.get("/").text
    assert '<a href="/jobs?status=finished&amp;ended=today&amp;sort=ended" data-tone="good"><b>2</b>' in first
    assert '<a href="/jobs?status=failed&amp;ended=today&amp;sort=ended" data-tone="bad"><b>1</b>' in first
    table = day.get("/jobs?status=finished&ended=today&sort=ended").text
    assert [table.find(f'id="job-{one}"') >= 0 for one in in_time] == [True, True]
    assert table.count('class="job-row"') == 2
    assert f'id="job-{failed}"' in day.get("/jobs?status=failed&ended=today").text
    since = day.get(f"/api/v1/jobs?ended_since={begin}").json()["jobs"]
    assert {job["id"] for job in since} == {*in_time, failed}


def test_own_results_come_before_the_published_ones_and_only_the_newest_of_each(day: Day) -> None:
    setting = {"name": "standard", "width": 512, "height": 512, "frames": 16, "steps": 50, "guidance": 9.0}
    row = {"at": "2026-11-20T10:00:00+00:00", "card_id": "GPU-1", "card": "RTX 3060", "model": "i2vgen-xl"}
    rows = [
        {**row, "setting": setting, "plan": None, "total_s": 99.0},
        {
            **row,
            "at": "2026-11-20T10:05:00+00:00",
            "setting": setting,
            "plan": None,
            "total_s": 88.0,
            "peak_gib": 7.5,
            "torch": "2.13.0",
        },
        {
            **row,
            "at": "2026-11-20T10:06:00+00:00",
            "setting": setting | {"frames": 14},
            "plan": None,
            "failure": "no memory plan fits this card",
        },
    ]
    Benches(day.farm.writer._engine).add(TypeAdapter(BenchResult).validate_python(one) for one in rows)
    found = day.get("/api/v1/benchmarks").json()
    own = [one for one in found if not one["published"]]
    assert [(one["total_s"], one["peak_gib"], one["failure"]) for one in own] == [
        (88.0, 7.5, None),
        (None, None, "no memory plan fits this card"),
    ]
    assert len(found) - len(own) == len(article().rows)
    text = day.get("/benchmarks").text
    assert text.index("RTX 3060") < text.index("RTX 2070 Super")
    assert "no memory plan fits this card" in text
    cards = day.get("/cards").text
    assert "<dt>Last 7 days</dt><dd>no clip</dd>" in cards, "an empty week is not 0"
    assert re.findall(r"<dt>Own bench</dt><dd>([^<]*)</dd>", cards) == [
        f"i2vgen-xl standard: 1{THIN}min 28{THIN}s, peak 7.5{THIN}GiB",
        "i2vgen-xl standard: no memory plan fits this card",
    ]


def test_a_cards_page_tells_its_week(day: Day) -> None:
    """The link led to all jobs that the card ever tried."""
    day.job(NOON - 600)
    day.job(NOON - 30 * HOUR)
    day.job(NOON - 500, fails=True)
    day.job(NOON - 8 * 24 * HOUR)
    shown = day.get("/cards").text
    assert ">2 clips</a>, 67 % of its renders came out well</dd>" in shown
    (link,) = re.findall(r'<dt>Last 7 days</dt><dd><a href="([^"]*)">', shown)
    listed = day.get(html.unescape(link)).text
    assert listed.count('class="job-row"') == 2, "the very clips that were counted"


def test_models_say_what_their_download_comes_to(day: Day) -> None:
    sizes = {model["name"]: model["download_gib"] for model in day.get("/api/v1/models").json()}
    assert sizes["animatic"] == 0
    # Parameters x 2 bytes: 1.42 billion of the UNet and what the catalogue says of the other parts.
    assert sizes["i2vgen-xl"] == pytest.approx(1.42e9 * 2 / 2**30 + 0.66 + 1.18 + 0.16, rel=0.03)
    assert sizes["svd"] == pytest.approx(1.525e9 * 2 / 2**30 + 1.18 + 0.18, rel=0.03)


def test_prometheus_reads_the_farms_figures_with_a_token(day: Day) -> None:
    day.job(NOON - 600)
    day.job(NOON - 500, fails=True)
    assert plain_http.get(f"{day.farm.base_url}/metrics").status_code == 401
    live = LiveJob("J1", "running", done=3, total=50, seconds_per_step=1.5, card_id=GPU.id)
    busy = LiveCard(GPU.id, "n1", "attic", GPU.name, "busy", job_id="J1")
    with FakeScheduler(day.farm.data, Snapshot(jobs=(live,), cards=(busy,))):
        wait_until(lambda: "farm_scheduler_up 1.0" in day.get("/metrics").text, what="the feed")
        answer = day.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    of = (("card", "GPU-1"), ("name", "RTX 3060"), ("node", "attic"))
    assert samples["farm_jobs", ("status", "finished")] == 1
    assert samples["farm_jobs", ("status", "queued")] == 0
    assert samples["farm_card_clips_per_hour", *of] == 1
    assert samples["farm_card_success_ratio", *of] == 0.5
    assert samples["farm_card_seconds_per_step", *of] == 1.5
    assert samples["farm_card_state", *of, ("state", "busy")] == 1
    assert samples["farm_card_state", *of, ("state", "idle")] == 0
    memory = (of[0], ("kind", "usable"), *of[1:])
    assert samples["farm_card_memory_bytes", *memory] == pytest.approx(11.2 * 2**30)


def test_prometheus_gets_no_sample_where_nothing_is_known(day: Day) -> None:
    text = day.get("/metrics").text
    assert "farm_scheduler_up 0.0" in text
    assert 'farm_card_state{card="GPU-1",name="RTX 3060",node="attic",state="not known"} 1.0' in text
    assert "farm_card_clips_per_hour{" not in text
    assert "farm_card_seconds_per_step{" not in text


def test_a_big_farms_first_screen_shows_the_cards_that_need_a_look(day: Day) -> None:
    """24 of 31, those at work or in trouble first; the others are a link away."""
    cards = [replace(GPU, id=f"GPU-{index:02}", name=f"Card {index:02}") for index in range(30)]
    day.farm.registry.see_node(Node("n2", "cellar", "10.0.0.3"), cards, NOON)
    states = {"GPU-29": "trouble", "GPU-28": "not answering", "GPU-27": "busy"}
    live = tuple(
        LiveCard(card.id, card.node_id, "x", card.name, states.get(card.id, "idle"))  # type: ignore[arg-type]
        for card in (GPU, *cards)
    )
    with FakeScheduler(day.farm.data, Snapshot(cards=live)):
        wait_until(lambda: "farm_scheduler_up 1.0" in day.get("/metrics").text, what="the feed")
        page = day.get("/").text
    shown = re.findall(r'data-card="([^"]+)"', page)
    assert shown[:4] == ["GPU-27", "GPU-29", "GPU-28", "GPU-1"]
    assert len(shown) == 24
    assert ">7 more cards</a>" in page


def test_a_farm_whose_jobs_all_failed_does_not_say_that_it_never_had_one(day: Day) -> None:
    day.job(NOON - 600, fails=True)
    assert "No jobs yet" not in day.get("/").text
