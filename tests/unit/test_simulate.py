"""`farm simulate`: files, virtual time, bounds, and what the command prints."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from farm.catalogue.models import builtin_models
from farm.cli.main import app
from farm.errors import BadInputError
from farm.hours import parse_hours
from farm.model import Card, Job
from farm.planning.loading import load_seconds
from scheduler.baselines import PLANNERS
from scheduler.bounds import bounds
from scheduler.fleet import poisson, read_fleet, read_jobs
from scheduler.fleets import builtin_fleet, builtin_fleets
from scheduler.policy import Pick, Policy
from scheduler.simulate import World, _changes, _Simulation, simulate

MODELS = builtin_models()
LOAD_S = load_seconds(MODELS["i2vgen-xl"])


def world(root: Path, fleet: str, jobs: str) -> World:
    (root / "fleet.yaml").write_text(fleet)
    (root / "jobs.yaml").write_text(jobs)
    cards = read_fleet(root / "fleet.yaml", MODELS)
    return World(cards.cards, read_jobs(root / "jobs.yaml", MODELS), MODELS, cards.tiers or "soft")


def seconds(of: World, job: int = 0, card: int = 0) -> float:
    return of.judge(of.arrivals[job].job, of.cards[card].card).seconds


# --- files ---
def test_a_fleet_file_with_all_it_may_have(tmp_path: Path) -> None:
    made = world(
        tmp_path,
        'cards: [{model: "RTX 3060", count: 2, node: a, ram_gib: 16, pcie: "3x16", hours: "22:00-08:00", mtbf_h: 40, speed: 0.5},'
        " {model: rtx2060}, {model: cpu}]",
        "jobs: [{preset: preview, count: 3, at_s: 10, every_s: 2, user: ann, priority: 2, batch: b1},"
        " {model: i2vgen-xl, steps: 60, anywhere: true}]",
    )
    first, second, third, cpu = made.cards
    assert (first.card.name, first.card.node_id, first.card.ram_gib) == ("RTX 3060 12 GB", "a", 8)
    assert first.card.id != second.card.id
    assert (first.mtbf_s, first.speed) == (40 * 3600, 0.5)
    assert first.hours == parse_hours("22:00-08:00")
    assert (third.card.name, cpu.card.name) == ("RTX 2060 6 GB", "CPU")
    assert third.hours is None
    assert third.card.node_id not in (cpu.card.node_id, "a")
    assert [(one.job.created_at, one.kind, one.batch) for one in made.arrivals] == [
        (0.0, "i2vgen-xl", None),
        (10.0, "preview", "b1"),
        (12.0, "preview", "b1"),
        (14.0, "preview", "b1"),
    ]
    assert made.arrivals[0].job.anywhere
    assert made.arrivals[0].job.settings.steps == 60
    assert made.arrivals[1].job.submitted_by == "ann"
    assert made.arrivals[1].job.priority == 2


def test_speed_scales_the_catalogues(tmp_path: Path) -> None:
    made = world(
        tmp_path, "cards: [{model: RTX 3060}, {model: RTX 3060, speed: 0.5}]", "jobs: [{preset: standard}]"
    )
    assert seconds(made, card=1) == pytest.approx(2 * seconds(made))


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        ("cards: []", "fleet.yaml: cards: List should have at least 1 item"),
        ("cards: [{count: 2}]", "cards.0.model: Field required"),
        ("cards: [{model: RTX 3060, colour: red}]", "cards.0.colour: Extra inputs are not permitted"),
        ("cards: [{model: RTX 3060, count: 0}]", "cards.0.count: Input should be greater than or equal to 1"),
        ("cards: [{model: RTX 3060, pcie: wide}]", "cards.0.pcie: String should match"),
        (
            "cards: [{model: RTX 3060}, {model: RTX 3061}]",
            "cards.1.model: The catalogue has no card called 'RTX 3061'",
        ),
        ("cards: [{model: RTX 3060, vram_gb: 7}]", "cards.0.model: RTX 3060 is not known in this size"),
        ("cards: [{model: RTX 3060, hours: late}]", "The hours 'late' cannot be understood"),
        (
            "cards: [{model: RTX 3060, count: 6000}]",
            "cards.0.count: Input should be less than or equal to 5000",
        ),
        ("cards: [{model: a", "is not YAML"),
        ("- 1", "fleet.yaml: the file: Input should be a valid dictionary"),
        ("", "fleet.yaml: the file: Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_with_a_fleet_file_is_said(tmp_path: Path, fleet: str, said: str) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(fleet)
    with pytest.raises(BadInputError) as error:
        read_fleet(path, MODELS)
    assert said in error.value.message
    assert error.value.remedy


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ("jobs: [{preset: preview}, {preset: fast}]", "jobs.1: "),
        ("jobs: [{preset: preview, steps: 100000}]", "jobs.0: "),
        ("jobs: [{preset: preview, at_s: -1}]", "jobs.0.at_s: Input should be greater than or equal to 0"),
        ("jobs: [{preset: preview, priority: high}]", "jobs.0.priority: Input should be a valid integer"),
    ],
)
def test_what_is_wrong_with_a_jobs_file_is_said(tmp_path: Path, jobs: str, said: str) -> None:
    path = tmp_path / "jobs.yaml"
    path.write_text(jobs)
    with pytest.raises(BadInputError) as error:
        read_jobs(path, MODELS)
    assert said in error.value.message


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="No such file"):
        read_fleet(tmp_path / "none.yaml", MODELS)


def test_poisson_arrivals_are_of_the_seed_and_the_rate() -> None:
    one, again, other = (poisson(60, 2000, seed, MODELS) for seed in (1, 1, 2))
    assert one == again != other
    assert one[-1].job.created_at == pytest.approx(2000 * 60, rel=0.1)
    kinds = [arrival.kind for arrival in one]
    assert kinds.count("preview") / 2000 == pytest.approx(0.7, abs=0.05)
    assert len({arrival.job.id for arrival in one}) == 2000
    with pytest.raises(BadInputError):
        poisson(0, 10, 0, MODELS)


# --- virtual time ---
def test_one_card_works_one_job_after_the_other_and_loads_its_model_once(tmp_path: Path) -> None:
    made = world(tmp_path, "cards: [{model: RTX 3060}]", "jobs: [{preset: standard, count: 3}]")
    run = simulate(made)
    one = seconds(made)
    assert run.makespan_s == pytest.approx(LOAD_S + 3 * one)
    assert (run.finished, run.failed) == (3, 0)
    assert run.wait["standard"].mean == pytest.approx((LOAD_S + one + LOAD_S + 2 * one) / 3)
    assert run.wait["standard"].p95 == pytest.approx(LOAD_S + 2 * one)
    assert run.utilization == {made.cards[0].card.id: pytest.approx(1.0)}
    assert [placed.load_s for placed in run.placed] == [pytest.approx(LOAD_S), 0.0, 0.0]
    assert bounds(made).best == pytest.approx(3 * one, rel=1e-3)


def test_changing_the_model_costs_its_load_each_time(tmp_path: Path) -> None:
    made = world(
        tmp_path,
        "cards: [{model: RTX 3060}]",
        "jobs: [{preset: svd, at_s: 0}, {preset: quality, at_s: 1}, {preset: svd, at_s: 2}]",
    )
    run = simulate(made, "fcfs")
    assert sum(placed.load_s > 0 for placed in run.placed) == 3
    assert sum(placed.load_s > 0 for placed in simulate(made).placed) == 2


def test_what_no_card_can_take_has_failed_at_once_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Complaint 3: a request that nobody can serve waits for ever (AI-Horde#539, OpenCue#1551)."""
    made = world(
        tmp_path,
        "tiers: strict\ncards: [{model: RTX 2070 Super}]",
        "jobs: [{preset: quality, count: 2}, {preset: preview, count: 4}]",
    )
    for name in PLANNERS:
        run = simulate(made, name)
        assert (run.finished, run.failed, run.unplaceable) == (4, 2, 2)
        assert set(run.wait) == {"preview"}
    assert bounds(made).best > 0


def test_nothing_that_can_run_is_a_run_all_the_same(tmp_path: Path) -> None:
    made = world(tmp_path, "cards: [{model: cpu}]", "jobs: [{preset: quality, count: 2}]")
    run = simulate(made)
    assert (run.makespan_s, run.finished, run.failed, run.wait) == (0.0, 0, 2, {})
    assert bounds(made).best == 0.0


def test_a_card_takes_work_only_in_its_hours_and_finishes_what_it_has_begun(tmp_path: Path) -> None:
    made = world(
        tmp_path, 'cards: [{model: RTX 3060, hours: "22:00-23:00"}]', "jobs: [{preset: quality, count: 20}]"
    )
    run = simulate(made)
    begins = [placed.begin for placed in run.placed]
    assert begins[0] == 22 * 3600
    assert all(22 * 3600 <= begin % 86400 < 23 * 3600 for begin in begins)
    assert any(placed.end % 86400 > 23 * 3600 for placed in run.placed)
    assert run.finished == 20
    assert run.makespan_s >= bounds(made).best > 86400


def test_hours_as_changes_in_time() -> None:
    def first(text: str, count: int) -> list[tuple[float, bool]]:
        changes = _changes(parse_hours(text))
        return [found for found, _ in zip(changes, range(count), strict=False)]

    hour, day = 3600.0, 86400.0
    assert first("22:00-08:00", 4) == [
        (0.0, True),
        (8 * hour, False),
        (22 * hour, True),
        (day + 8 * hour, False),
    ]
    assert first("all", 3) == [(0.0, True)]
    week = first("sun 20:00-04:00", 5)
    assert week[:3] == [(0.0, True), (4 * hour, False), (6 * day + 20 * hour, True)]
    assert week[3] == (7 * day + 4 * hour, False), "Sunday's night goes on into Monday"


def test_a_card_that_fails_loses_its_job_which_another_finishes(tmp_path: Path) -> None:
    made = world(
        tmp_path,
        "cards: [{model: RTX 3060, mtbf_h: 0.3}, {model: RTX 3060}]",
        "jobs: [{preset: quality, count: 40}]",
    )
    for name in PLANNERS:
        run = simulate(made, name, seed=3)
        assert run.finished + run.failed == 40
        assert len({placed.job_id for placed in run.placed}) == run.finished, "no job is finished twice"
        failing = sorted(placed.begin for placed in run.placed if "#0" in placed.card_id)
        assert failing, "it comes back after a failure"
    assert simulate(made, seed=3) == simulate(made, seed=3)
    assert simulate(made, seed=3) != simulate(made, seed=4)


def test_a_job_that_no_card_lives_long_enough_for_is_given_up(tmp_path: Path) -> None:
    made = world(tmp_path, "cards: [{model: RTX 3060, mtbf_h: 0.0001}]", "jobs: [{preset: quality}]")
    run = simulate(made)
    assert (run.finished, run.failed) == (0, 1)
    assert run.makespan_s == 0.0


# --- the event log ---
class Recorder:
    """The policy, with a log of all that it is told and says: a line of JSON each."""

    def __init__(self, of: World) -> None:
        self._policy = Policy(of.judge, of.loading)
        self.lines: list[str] = []

    def add_job(self, job: Job, seq: int, batch: str | None = None) -> None:
        self.lines.append(json.dumps(["job", job.id, seq, batch]))
        self._policy.add_job(job, seq, batch)

    def set_card(
        self, card: Card, *, free: bool, busy_until: float | None = None, model: str | None = None
    ) -> None:
        self.lines.append(json.dumps(["card", card.id, free, busy_until, model]))
        self._policy.set_card(card, free=free, busy_until=busy_until, model=model)

    def decide(self, now: float) -> list[Pick]:
        picks = self._policy.decide(now)
        self.lines.append(json.dumps(["decide", now, [[pick.job.id, pick.card.id] for pick in picks]]))
        return picks


def test_the_replay_of_a_recorded_event_log_gives_the_same_decisions(tmp_path: Path) -> None:
    """Nothing in the policy looks at a clock, a hash's order or chance: what happened can be looked into afterwards."""
    made = world(
        tmp_path,
        "cards: [{model: RTX 2070 Super, count: 3, mtbf_h: 2}, {model: RTX 3060, count: 2}, {model: RTX 4080, mtbf_h: 3}]",
        "jobs: [{preset: standard, count: 60, user: ann, batch: b}, {preset: quality, count: 30, user: bob},"
        " {preset: svd, count: 20, user: bob, at_s: 900}, {preset: preview, count: 60, every_s: 50, user: cat}]",
    )
    recorder = Recorder(made)
    run = _Simulation(made, recorder, seed=1).run()
    assert run.finished == 170
    jobs = {one.job.id: one.job for one in made.arrivals}
    cards = {one.card.id: one.card for one in made.cards}
    policy, decided = Policy(made.judge, made.loading), 0
    for line in recorder.lines:
        what, *told = json.loads(line)
        if what == "job":
            policy.add_job(jobs[told[0]], told[1], told[2])
        elif what == "card":
            policy.set_card(cards[told[0]], free=told[1], busy_until=told[2], model=told[3])
        else:
            assert [[pick.job.id, pick.card.id] for pick in policy.decide(told[0])] == told[1]
            decided += len(told[1])
    assert decided >= 170


# --- bounds and invariants ---
@settings(max_examples=25, deadline=None)
@given(
    cards=st.lists(
        st.sampled_from(["GTX 970", "RTX 2060", "RTX 2070 Super", "RTX 3050", "RTX 3060", "RTX 4090"]),
        min_size=1,
        max_size=5,
    ),
    jobs=st.lists(
        st.tuples(
            st.sampled_from(["preview", "standard", "quality", "svd", "draft"]),
            st.integers(1, 9),
            st.sampled_from([0, 300, 4000]),
            st.booleans(),
        ),
        min_size=1,
        max_size=4,
    ),
    tiers=st.sampled_from(["soft", "strict", "off"]),
)
def test_every_run_keeps_the_rules_and_none_beats_the_bounds(
    tmp_path_factory: pytest.TempPathFactory,
    cards: list[str],
    jobs: list[tuple[str, int, int, bool]],
    tiers: str,
) -> None:
    rows = "".join(
        f"- {{preset: {preset}, count: {count}, at_s: {at}{', batch: b' if batch else ''}}}\n"
        for preset, count, at, batch in jobs
    )
    made = world(
        tmp_path_factory.mktemp("world"),
        f'tiers: "{tiers}"\ncards:\n' + "".join(f"- model: {name}\n" for name in cards),
        f"jobs:\n{rows}",
    )
    low = bounds(made)
    known = {one.job.id: one.job for one in made.arrivals}
    on = {one.card.id: one.card for one in made.cards}
    for name in PLANNERS:
        run = simulate(made, name)
        assert run.finished + run.failed == len(known)
        assert len({placed.job_id for placed in run.placed}) == run.finished
        assert run.makespan_s >= low.best * (1 - 1e-6)
        for card_id in on:
            mine = sorted((one.begin, one.end) for one in run.placed if one.card_id == card_id)
            assert all(former[1] <= later[0] + 1e-6 for former, later in pairwise(mine))
        for placed in run.placed:
            verdict = made.judge(known[placed.job_id], on[placed.card_id])
            assert verdict.eligible
            assert placed.begin >= known[placed.job_id].created_at
            assert placed.end - placed.begin == pytest.approx(placed.load_s + verdict.seconds)


def test_the_integral_bound_knows_whole_jobs(tmp_path: Path) -> None:
    """Three jobs on two cards alike take two jobs' time, though their work could be shared to one and a half."""
    made = world(tmp_path, "cards: [{model: RTX 3060, count: 2}]", "jobs: [{preset: quality, count: 3}]")
    low = bounds(made)
    assert low.linear == pytest.approx(1.5 * seconds(made), rel=1e-3)
    assert low.integral == pytest.approx(2 * seconds(made), rel=1e-3)
    assert simulate(made).makespan_s == pytest.approx(2 * seconds(made) + LOAD_S)


def test_the_release_bound_knows_when_jobs_come(tmp_path: Path) -> None:
    made = world(
        tmp_path, "cards: [{model: RTX 3060}]", "jobs: [{preset: quality}, {preset: quality, at_s: 50000}]"
    )
    assert bounds(made).release == pytest.approx(50000 + seconds(made))
    assert bounds(made).best == bounds(made).release


# --- the built-in fleets ---
@pytest.mark.parametrize("name", builtin_fleets())
def test_each_built_in_fleet_is_as_it_should_be(name: str) -> None:
    """Ten of 3 to 200 cards and 50 to 20,000 jobs, without failures; their figures are in docs/benchmarks.md."""
    assert len(builtin_fleets()) == 10
    fleet = read_fleet(builtin_fleet(name)[0], MODELS)
    jobs = read_jobs(builtin_fleet(name)[1], MODELS)
    assert 3 <= len(fleet.cards) <= 200
    assert 50 <= len(jobs) <= 20_000
    assert all(one.mtbf_s is None and one.hours is None for one in fleet.cards)
    assert all(4 <= (one.card.vram_gib or 0) <= 24 for one in fleet.cards)


@pytest.mark.parametrize("name", ["three-pcs", "attic", "strict-bands"])
def test_small_built_in_fleets_end_near_the_best_possible(name: str) -> None:
    fleet = read_fleet(builtin_fleet(name)[0], MODELS)
    made = World(fleet.cards, read_jobs(builtin_fleet(name)[1], MODELS), MODELS, fleet.tiers or "soft")
    assert simulate(made).makespan_s <= 1.05 * bounds(made).best


# --- the command ---
FLEET = "cards: [{model: RTX 2070 Super}, {model: RTX 3060}]"
JOBS = "jobs: [{preset: preview, count: 6, user: ann}, {preset: quality, count: 2, batch: b1}]"


def call(*arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["simulate", *arguments])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.output


def test_the_command_prints_json_with_the_contracts_keys(tmp_path: Path) -> None:
    made = world(tmp_path, FLEET, JOBS)
    fleet, jobs = str(tmp_path / "fleet.yaml"), str(tmp_path / "jobs.yaml")
    code, out = call(fleet, "--jobs", jobs, "--json")
    assert code == 0
    told = json.loads(out)
    run, low = simulate(made), bounds(made).best
    assert told["makespan_s"] == pytest.approx(run.makespan_s, abs=1e-3)
    assert told["lower_bound_s"] == pytest.approx(low, abs=1e-3)
    assert told["ratio"] == pytest.approx(run.makespan_s / low, abs=1e-4)
    assert told["wait"]["preview"]["p95"] == pytest.approx(run.wait["preview"].p95, abs=1e-3)
    assert set(told["wait"]) == {"preview", "quality"}
    assert set(told["utilization"]) == {one.card.id for one in made.cards}
    assert (told["finished"], told["failed"]) == (8, 0)
    assert set(told["baselines"]) == {"fcfs", "equal-shares", "list-order"}
    fcfs = simulate(made, "fcfs")
    assert told["baselines"]["fcfs"]["makespan_s"] == pytest.approx(fcfs.makespan_s, abs=1e-3)


def test_the_command_knows_the_built_in_fleets() -> None:
    code, out = call("three-pcs", "--json")
    assert code == 0
    assert json.loads(out)["finished"] == 50


def test_the_command_prints_a_table(tmp_path: Path) -> None:
    world(tmp_path, FLEET, JOBS)
    code, out = call(
        str(tmp_path / "fleet.yaml"), "--poisson", "200", "--count", "40", "--policy", "fcfs", "--seed", "5"
    )
    assert code == 0
    first = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert first[:4] == ["Policy", "fcfs", "equal-shares", "list-order"]
    assert "No scheduler could be done before" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["FLEET"],
        ["FLEET", "--poisson", "0"],
        ["FLEET", "--jobs", "JOBS", "--poisson", "5"],
        ["FLEET", "--jobs", "JOBS", "--policy", "best"],
        ["MISSING", "--jobs", "JOBS"],
        ["JOBS", "--jobs", "FLEET"],
    ],
)
def test_wrong_arguments_are_told_as_such(tmp_path: Path, arguments: list[str]) -> None:
    world(tmp_path, FLEET, JOBS)
    names = {"FLEET": "fleet.yaml", "JOBS": "jobs.yaml", "MISSING": "missing.yaml"}
    with pytest.raises(BadInputError):  # main() makes exit code 2 of it
        call(*(str(tmp_path / names[one]) if one in names else one for one in arguments))
