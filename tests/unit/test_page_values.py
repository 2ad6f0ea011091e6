"""What pages say, from values alone: the farm's state in a word, a form filled in from a job, the evaluation by setting."""

import re
from dataclasses import replace

import pytest

from dashboard.pages.evaluation import by_setting
from dashboard.pages.jobs import Filters, promoted
from dashboard.pages.machines import facts_of, told
from dashboard.state import farm_state
from dashboard.words import THIN
from farm.answers.figures import BenchSettingView, BenchView
from farm.answers.jobs import JobUrls, JobView
from farm.answers.machines import CardView
from farm.catalogue.article import BenchSetting
from farm.model import CardKind, JobStatus, MemoryPlan, PcieLink, Tier
from farm.own_bench import BenchResult
from tests.storage import SETTINGS

STANDARD = BenchSettingView(name="standard", width=512, height=512, frames=16, steps=50, guidance=9.0)
SHORT = STANDARD.model_copy(update={"frames": 14})


@pytest.mark.parametrize(
    ("states", "queued", "running", "word", "reason"),
    [
        ([], 3, 0, "No cards", "Nothing can render until a PC has joined."),
        (["idle", "idle"], 0, 0, "Idle", "2 of 2 cards ready."),
        (["idle", "trouble"], 0, 0, "Idle", "1 of 2 cards ready; 1 card not answering or in trouble."),
        (["busy", "idle"], 1, 1, "Rendering", "1 job on 1 of 2 cards, 1 job waiting."),
        (["idle"], 1, 0, "Waiting", "1 job waits for a card that can run it."),
        (["starting", "starting"], 0, 0, "Starting", "2 cards starting."),
        (
            ["not answering"],
            2,
            0,
            "No card answers",
            "1 card known, 2 jobs waiting; the Cards page says why.",
        ),
        (["drained"], 0, 0, "Drained", "The only card is drained; `farm resume` gives a PC work again."),
        (
            ["kept"],
            1,
            0,
            "Resting",
            "The only card is with its owner, 1 job waiting; the Cards page says why.",
        ),
        (
            ["kept", "kept"],
            0,
            0,
            "Resting",
            "All 2 cards are with their owners; the Cards page says why.",
        ),
        (["kept", "idle"], 0, 0, "Idle", "1 of 2 cards ready; 1 card kept for its owner."),
        (
            ["kept", "busy", "kept"],
            0,
            1,
            "Rendering",
            "1 job on 1 of 3 cards; 2 cards kept for their owners.",
        ),
        (["kept", "drained"], 0, 0, "Resting", "1 card kept for its owner; 1 card drained."),
        (
            ["kept", "trouble"],
            2,
            0,
            "Resting",
            "1 card not answering or in trouble; 1 card kept for its owner, 2 jobs waiting.",
        ),
        (["paused"], 0, 0, "Paused", "1 card waiting for a test; the Cards page says why."),
        (["idle", "paused"], 0, 0, "Idle", "1 of 2 cards ready; 1 card waiting for a test."),
    ],
)
def test_the_farms_state_in_a_word_with_its_reason(
    states: list[str], queued: int, running: int, word: str, reason: str
) -> None:
    """Cards that were kept for their owners counted as broken: a red "No card answers" all day where owners give the nights only."""
    counts = {JobStatus.QUEUED: queued, JobStatus.RUNNING: running}
    found = farm_state(connected=True, states=states, counts=counts)
    assert (found.word, found.reason) == (word, reason)
    assert (found.tone == "bad") == (word in ("No card answers", "Paused"))
    lost = farm_state(connected=False, states=states, counts=counts)
    assert (lost.word, lost.tone) == ("Scheduler not answering", "bad")


def test_filters_keep_each_other_and_begin_at_the_first_page() -> None:
    filters = Filters(status="failed", q="a b&c", sort="ended")
    assert filters.link() == "/jobs?status=failed&q=a+b%26c&sort=ended"
    assert filters.link(status=None) == "/jobs?q=a+b%26c&sort=ended"
    assert filters.link(sort=None, cursor=7) == "/jobs?status=failed&q=a+b%26c&cursor=7"
    assert Filters().link() == "/jobs"
    assert not Filters(sort="rating").any


def test_only_a_finished_preview_with_a_prompt_is_made_again_in_quality() -> None:
    job = JobView(
        id="J",
        status=JobStatus.FINISHED,
        settings=SETTINGS,
        tier=Tier.PREVIEW,
        model="animatic",
        created_at=1.0,
        urls=JobUrls(input="", log="", page=""),
    )
    assert promoted(job) == '{"preset": "quality", "prompt": "pan left", "seed": 7}'
    for change in (
        {"status": JobStatus.FAILED},
        {"removed_at": 2.0},
        {"tier": Tier.QUALITY},
        {"settings": replace(SETTINGS, prompt="")},
    ):
        assert promoted(job.model_copy(update=change)) is None


def test_the_evaluation_is_laid_out_by_setting_own_rows_first() -> None:
    rows = [
        BenchView(card="A", model="m", setting=STANDARD, total_s=90.0),
        BenchView(card="B", model="m", setting=STANDARD, total_s=60.0),
        BenchView(card="C", model="m", setting=STANDARD, failure="out of memory"),
        BenchView(card="D", model="m", setting=SHORT, total_s=10.0),
        BenchView(card="E", model="m", setting=STANDARD, total_s=120.0, published=True),
    ]
    first, second = by_setting(rows)
    assert (first.shape, second.shape) == (STANDARD, SHORT)
    assert [row.card for row in first.rows] == ["B", "A", "C", "E"]
    assert [(bar.row.card, bar.share) for bar in first.bars] == [("B", 50.0), ("A", 75.0), ("E", 100.0)]
    assert by_setting([]) == []


def test_a_card_s_facts_are_told_as_they_are_now() -> None:
    card = CardView(
        id="GPU-1",
        node_id="n",
        node_name="n",
        kind=CardKind.CUDA,
        name="RTX 2060",
        vram_gib=6.0,
        usable_gib=5.4,
        band=Tier.PREVIEW,
        compute_capability="7.5",
        models=["animatic", "<svd>"],
        state="idle",
        precision="fp16",
        driver="550.120",
        pcie=PcieLink(3, 4, 16),
    )
    terms = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", told(facts_of(card, [])))
    assert terms == [
        ("Memory", f"6{THIN}GiB, 5.4{THIN}GiB usable"),
        ("Takes", "preview: up to 512 \N{MULTIPLICATION SIGN} 512 px, 16 frames, 50 steps"),
        ("Models", "animatic, &lt;svd&gt;"),
        ("Compute capability", "7.5"),
        ("Computes in", "half precision (fp16)"),
        ("Driver", "550.120"),
        ("Slot", "PCIe 3 x4 of x16"),
    ]
    held = card.model_copy(update={"others_gib": 0.5, "usable_gib": 4.9, "models": []})
    terms = re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", told(facts_of(held, [])))
    assert terms[0] == ("Memory", f"6{THIN}GiB, 4.9{THIN}GiB usable, other programs hold 0.5{THIN}GiB")
    assert terms[2] == ("Models", "none yet")
    setting = BenchSetting("standard", 512, 512, 16, 50, 9.0)
    row = BenchResult(
        "2026-11-20T10:00:00+00:00", "GPU-1", "RTX 2060", "svd", setting, MemoryPlan(), total_s=80.0
    )
    assert ("Own bench", f"svd standard: 1{THIN}min 20{THIN}s") in re.findall(
        "<dt>(.*?)</dt><dd>(.*?)</dd>", told(facts_of(card, [row]))
    )
    bare = CardView(
        id="CPU-n", node_id="n", node_name="n", kind=CardKind.CPU, name="CPU", band=Tier.POST, state="idle"
    )
    assert re.findall("<dt>(.*?)</dt>", told(facts_of(bare, []))) == ["Takes", "Models"]
