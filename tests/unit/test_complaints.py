"""What the users of other farms complain of, and the tests that hold us to doing better: an index that cannot rot.

The numbers are those of the list of complaints that the farm was designed against. A test that is renamed or removed fails here.
"""

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent

COMPLAINTS: dict[str, dict[str, list[str]]] = {
    "2: a worker shows green and does nothing; a host is shown UP with a 21 hours old ping": {
        "unit/test_watch.py": [
            "test_a_node_that_falls_silent_gets_no_work_and_is_named",
            "test_cards_of_the_store_wait_for_their_node",
            "test_a_worker_that_does_not_answer_gets_no_work_and_is_replaced_after_its_grace",
        ],
        "integration/test_workers.py": [
            "test_a_worker_that_hangs_while_idle_is_replaced_and_the_next_job_loses_nothing"
        ],
    },
    "3: a request that nobody can serve waits for ever": {
        "unit/test_scheduler.py": [
            "test_a_job_no_card_can_serve_is_unplaceable_at_once_with_the_reason_and_the_remedy"
        ],
        "unit/test_troubles.py": [
            "test_a_job_fails_with_all_reasons_when_only_cards_are_left_that_it_failed_on",
            "test_a_card_that_was_not_heard_from_for_a_week_is_no_hope",
        ],
    },
    "4: a frame silently on two hosts; completion reports dropped; a restarted agent leaves it RUNNING for ever; a lost upload": {
        "unit/test_scheduler.py": [
            "test_each_card_has_one_attempt_and_the_queue_keeps_its_order",
            "test_a_restarted_scheduler_takes_up_the_attempt_and_its_result_comes_once",
            "test_a_result_waits_in_the_spool_of_a_node_whose_worker_is_gone",
            "test_a_result_that_could_not_be_taken_in_at_once_is_taken_in_later",
            "test_a_worker_that_dies_loses_its_attempt_and_the_job_runs_again",
            "test_a_slow_network_does_not_lose_a_result_at_the_first_time_out",
        ],
        "unit/test_troubles.py": [
            "test_the_complete_clip_of_a_lost_attempt_is_taken_when_its_node_comes_back",
            "test_a_late_clip_stops_the_attempt_that_another_card_is_at",
            "test_a_late_clip_of_a_job_that_is_finished_changes_nothing",
        ],
        "unit/test_audit.py": ["test_what_must_not_be_is_found"],
        "whole_farm/test_farm.py": [
            "test_kill_9_of_the_scheduler_in_mid_job_and_the_result_arrives_once"
        ],
        "network/test_render.py": [
            "test_a_clip_that_was_completed_while_its_cable_was_pulled_counts_once"
        ],
        "whole_farm/test_restart.py": [
            "test_a_result_complete_in_the_spool_when_the_head_is_killed_is_fetched_and_not_made_again"
        ],
    },
    "5: an OOM taught the farm that the card is too small although a game held the memory; doomed jobs return to the same card": {
        "unit/test_tries.py": ["test_a_game_that_took_the_memory_is_named_and_nothing_is_held_against_the_card"],
        "unit/test_troubles.py": ["test_memory_that_a_game_held_is_held_neither_against_the_card_nor_for_good"],
        "unit/test_store.py": [
            "test_attempts_that_teach_are_found_newest_first_and_disturbed_or_withdrawn_ones_are_not"
        ],
        "unit/test_outcomes.py": ["test_the_table_of_failures"],
        "unit/test_scheduler.py": ["test_a_restarted_scheduler_remembers_which_cards_a_job_failed_on"],
    },
    "6: OOM cascades; an OOM should step down to a leaner memory plan and not break the queue": {
        "unit/test_tries.py": [
            "test_out_of_memory_is_tried_again_with_the_next_leaner_plan_and_the_same_settings",
            "test_memory_that_does_not_come_back_ends_the_worker_and_not_the_job",
        ],
        "unit/test_going_on.py": [
            "test_out_of_memory_goes_on_from_the_last_checkpoint_with_a_leaner_plan"
        ],
        "unit/test_troubles.py": ["test_a_card_that_fails_three_jobs_is_paused_tested_and_comes_back"],
    },
    "12: the renderer is out of memory, the job runs for six hours, the machine is idle": {
        "unit/test_stalls.py": ["test_patience_comes_from_the_job_s_own_steps"],
        "unit/test_troubles.py": [
            "test_a_worker_that_stands_still_is_stopped_and_its_job_goes_on",
            "test_a_worker_that_does_not_even_stop_is_ended_after_a_grace",
            "test_a_model_may_take_long_to_load_but_not_for_ever",
        ],
    },
    "15: zombie tasks after the server crashed": {
        "unit/test_scheduler.py": [
            "test_a_card_that_comes_back_inside_a_lost_attempt_costs_the_job_nothing_more",
            "test_a_card_found_busy_at_the_start_takes_the_attempt_back_and_stops_the_one_that_holds_it",
            "test_an_attempt_that_was_committed_but_never_handed_over_is_handed_over_after_a_crash",
        ],
        "unit/test_watch.py": [
            "test_a_worker_inside_an_attempt_that_nobody_attends_is_told_to_stop_and_gets_no_work_until_it_has",
            "test_a_worker_that_does_not_stop_is_replaced_after_its_grace",
        ],
        "unit/test_spool.py": [
            "test_an_attempt_that_was_killed_before_its_first_word_is_listed_and_so_can_be_forgotten"
        ],
        "whole_farm/test_restart.py": [
            "test_kill_9_of_the_whole_head_keeps_queue_and_history_and_finishes_the_interrupted_job_once"
        ],
    },
}  # fmt: skip


@cache
def names_in(file: str) -> frozenset[str]:
    """The test functions of a file, read and not imported: some need torch, or Ray."""
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


@pytest.mark.parametrize("complaint", COMPLAINTS)
def test_each_complaint_has_its_tests(complaint: str) -> None:
    for file, names in COMPLAINTS[complaint].items():
        assert set(names) <= names_in(file), file
