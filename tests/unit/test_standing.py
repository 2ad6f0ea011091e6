"""How a card stands while its worker starts, tests it, fails and is replaced."""

from dataclasses import replace

from farm.model import CardKind, Coming
from farm.wire import CardReport
from node_agent.standing import RETEST_S, Standing, WorkerWord, with_coming

GPU = CardReport("GPU-1", CardKind.CUDA, "GTX 1080", 8.0, 7.4, (6, 1), tested=False)
FINE, SICK = WorkerWord(7, tested=True), WorkerWord(7, tested=True, trouble="No kernels for it.")


def test_a_gpu_counts_as_tested_once_its_worker_says_so() -> None:
    standing = Standing()
    assert not standing.of(GPU).tested
    standing.hear(WorkerWord(7), 0.0)
    assert not standing.of(GPU).tested
    standing.hear(FINE, 2.0)
    assert (standing.of(GPU).tested, standing.of(GPU).trouble) == (True, None)


def test_a_card_whose_worker_ended_is_tested_anew() -> None:
    standing = Standing(FINE)
    standing.hear(None, 5.0)
    assert not standing.of(GPU).tested


def test_what_the_test_found_is_the_card_s_trouble() -> None:
    standing = Standing()
    standing.hear(SICK, 1.0)
    assert (standing.of(GPU).tested, standing.of(GPU).trouble) == (True, "No kernels for it.")


def test_a_cpu_needs_no_test() -> None:
    cpu = CardReport("CPU-n1", CardKind.CPU, "CPU")
    assert Standing().of(cpu) == cpu


def test_a_card_in_trouble_is_tried_again_after_a_while_and_not_before() -> None:
    """A card whose owner had installed the right torch stayed in trouble until the whole PC was restarted."""
    standing = Standing()
    standing.hear(SICK, 100.0)
    standing.hear(SICK, 100.0 + RETEST_S - 1)
    assert not standing.shall_retest(100.0 + RETEST_S - 1)
    assert standing.shall_retest(100.0 + RETEST_S)
    standing.renew()
    assert not standing.shall_retest(1e9)
    standing.hear(SICK, 500.0)
    assert not standing.shall_retest(501.0)


def test_words_come_from_what_a_worker_answers() -> None:
    said = {"pid": 7, "attempt_id": None, "tested": True, "trouble": "No kernels for it.", "spills": 0}
    said["held_gib"] = None
    assert WorkerWord.of(said) == SICK


def test_a_card_that_spilled_is_used_less_and_says_so_also_after_its_worker_ended() -> None:
    """Windows moved memory to RAM at twenty times the time, and the next render did the same (horde-worker-reGen#332)."""
    standing = Standing()
    standing.hear(replace(FINE, spills=1), 0.0)
    said = standing.of(GPU)
    assert said.usable_gib == 6.9
    assert (
        said.notice
        == "0.5 GiB less of its memory is used: Windows moved some of it to the PC's RAM during a render."
    )
    standing.hear(None, 1.0)
    standing.hear(WorkerWord(8, tested=True), 2.0)
    assert standing.of(GPU).usable_gib == 6.9
    standing.hear(WorkerWord(8, tested=True, spills=2), 3.0)
    assert standing.of(GPU).usable_gib == 5.9
    standing.hear(WorkerWord(8, tested=True, spills=40), 4.0)
    assert standing.of(GPU).usable_gib == 5.4
    assert Standing(FINE).of(GPU).notice is None


def test_a_card_whose_memory_is_not_known_has_nothing_to_be_lowered() -> None:
    standing = Standing(replace(FINE, spills=1))
    assert standing.of(replace(GPU, usable_gib=None)).usable_gib is None


def test_what_comes_anew_is_told_as_that_and_not_as_damaged() -> None:
    damaged = tuple(Coming(name, 0, 0, "A file is cut short.", damaged=True) for name in ("svd", "i2vgen-xl"))
    on_its_way = Coming("svd", 1, 9)
    told = with_coming(replace(GPU, coming=damaged), (on_its_way,))
    assert told.coming == (on_its_way, damaged[1])
