"""A node's own bench on its way to the head: read there, reported, stored once, and counted at once."""

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from farm.catalogue.article import BenchSetting
from farm.catalogue.models import builtin_models
from farm.model import CardKind, Job, JobStatus, MemoryPlan, Tier
from farm.news import Told, told_from_dict, told_to_dict
from farm.own_bench import BenchResult
from farm.planning.estimate import seconds
from farm.store.benches import Benches
from farm.wire import CardReport, NodeReport
from node_agent.benched import LOCAL
from node_agent.benched import Benched as NodeBenched
from scheduler.benched import LOOK_EVERY_S, Benched
from tests.fakes import MovedClock
from tests.storage import SETTINGS, open_storage
from tests.unit.test_scheduler import Bench, bench

STANDARD = BenchSetting("standard", 512, 512, 16, 50, 9.0)
ROW = BenchResult(
    "2026-11-20T10:00:00+00:00", "GPU-1", "RTX 3060", "i2vgen-xl", STANDARD, MemoryPlan(), total_s=100.0
)
GPU = CardReport("GPU-1", CardKind.CUDA, "RTX 3060")
CPU = CardReport("CPU-n1", CardKind.CPU, "Ryzen 5")


def write(file: Path, *rows: BenchResult) -> None:
    file.write_text("".join(f"{json.dumps(asdict(row))}\n" for row in rows))


# --- on the node ---
def test_a_node_tells_the_newest_row_of_each_of_its_cards(tmp_path: Path) -> None:
    file, other = tmp_path / "bench.jsonl", tmp_path / "none.jsonl"
    later = replace(ROW, at="2026-11-21T10:00:00+00:00", total_s=90.0)
    cpu = replace(ROW, card_id=LOCAL, model="animatic")
    write(file, ROW, later, replace(ROW, card_id="GPU-of-another-pc"), cpu)
    found = NodeBenched([other, file]).of([GPU, CPU])
    assert found == (later, replace(cpu, card_id="CPU-n1"))
    assert NodeBenched([other]).of([GPU]) == ()


def test_a_damaged_line_hides_no_other(tmp_path: Path) -> None:
    """Bytes that are no text ended each of the node's reports to the head."""
    file = tmp_path / "bench.jsonl"
    write(file, ROW)
    with file.open("ab") as damaged:
        damaged.write(b'\xff\xfe\0\0\n{"at": "2026-')
    assert NodeBenched([file]).of([GPU]) == (ROW,)


def test_a_file_is_read_again_only_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "bench.jsonl"
    write(file, ROW)
    read = []
    monkeypatch.setattr("farm.own_bench.read_bench", lambda path: (read.append(path), [ROW])[1])
    here = NodeBenched([file])
    assert here.of([GPU]) == here.of([GPU]) == (ROW,)
    assert read == [file]
    write(file, ROW, ROW)
    here.of([GPU])
    assert read == [file, file]


def test_a_report_carries_the_rows_over_the_wire_and_an_older_node_s_has_none() -> None:
    report = NodeReport("n1", "attic", "10.0.0.2", 1.0, {}, (GPU,), bench=(ROW,))
    sent = json.loads(json.dumps(told_to_dict(Told("m", report))))
    assert told_from_dict(sent).report == report
    del sent["report"]["bench"]
    assert told_from_dict(sent).report == replace(report, bench=None)


# --- on the head ---
def test_rows_are_stored_once_and_outlive_the_process(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    benches = Benches(store.writer._engine)
    taller = replace(ROW, setting=replace(STANDARD, height=704))
    later = replace(ROW, at="2026-11-21T10:00:00+00:00", failure="no memory plan fits this card")
    assert benches.add([ROW, taller]) == [ROW, taller]
    assert benches.add([later, ROW]) == [later]
    assert Benches(store.reader._engine).rows() == [later, ROW, taller]
    assert Benches(store.reader._engine).newest() == [later, taller]
    store.close()


def test_the_head_takes_a_node_s_word_for_its_own_cards_only(tmp_path: Path) -> None:
    store = open_storage(tmp_path)
    benched = Benched(Benches(store.writer._engine), tmp_path / "bench.jsonl", MovedClock())
    foreign = replace(ROW, card_id="GPU-2")
    report = NodeReport("n1", "attic", "10.0.0.2", 1.0, {}, (GPU,), bench=(ROW, foreign))
    assert benched.hear(report) == [ROW]
    assert benched.hear(report) == []
    assert benched.hear(replace(report, bench=None)) == []
    assert benched.rows == [ROW]
    store.close()


def test_the_head_s_own_bench_is_taken_in_while_it_runs(tmp_path: Path) -> None:
    """It was read at the scheduler's start, and counted for nothing until the next one."""
    store, clock, file = open_storage(tmp_path), MovedClock(), tmp_path / "bench.jsonl"
    benched = Benched(Benches(store.writer._engine), file, clock)
    assert benched.look() == []
    write(file, ROW)
    assert benched.look() == [], "not every tick"
    clock.move(LOOK_EVERY_S)
    assert benched.look() == [ROW]
    clock.move(LOOK_EVERY_S)
    assert benched.look() == []
    store.close()


def test_a_node_s_bench_changes_the_prediction_at_once(tmp_path: Path) -> None:
    """Only a bench in the head's own directory counted, and only from the scheduler's next start on."""

    async def story(made: Bench) -> None:
        made.benched = Benched(Benches(made.store.writer._engine), tmp_path / "bench.jsonl", made.clock)
        (card_id,) = made.cluster.add_node("n1")
        await made.start()
        await made.until(lambda: made.free() == {card_id}, "the card is there")
        scheduler = made.scheduler
        assert scheduler is not None
        (card,) = scheduler._policy.cards
        job = Job("J", JobStatus.QUEUED, SETTINGS, Tier.PREVIEW, "ab", 1.0, draft=True)
        before = scheduler._known.judge(job, card).seconds
        shape = BenchSetting("standard", 512, 512, 16, 1, 1.0)
        row = replace(ROW, card_id=card_id, model="animatic", setting=shape)
        plain = seconds(builtin_models()["animatic"], card, row.settings, MemoryPlan())
        made.cluster.bench["n1"] = (replace(row, total_s=3 * plain),)
        await made.until(lambda: bool(made.benched and made.benched.rows), "the bench arrives")
        learned = scheduler._known.view.learned[card_id, "animatic"]
        assert (learned.benches, learned.basis) == (1, "calibrated")
        assert scheduler._known.judge(job, card).seconds == pytest.approx(before * learned.seconds)
        assert 2.0 < learned.seconds < 3.0

    async def whole() -> None:
        async with bench(tmp_path) as made:
            await story(made)

    asyncio.run(whole())
