"""Ids, tokens, and everything that goes over a wire: what comes back is what was sent."""

import hashlib
import json
import re
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from farm import auth, events, feed, wire
from farm.auth import Credential, TokenKind, hash_token, judge, new_token
from farm.errors import SignInError
from farm.events import Event
from farm.feed import WAKE, FeedMessage
from farm.ids import new_id
from farm.model import CardKind, MemoryPlan
from farm.news import Told, told_from_dict, told_to_dict
from farm.store.rows import plan_from_json, plan_to_json, settings_to_json
from tests.storage import SETTINGS

NOW = 1000.0


def made(kind: type) -> st.SearchStrategy[Any]:
    """Any value of a dataclass; numbers are finite, for no message carries another."""
    return st.builds(kind, **{name: _of(hint) for name, hint in get_type_hints(kind).items()})


def _of(hint: Any) -> st.SearchStrategy[Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if is_dataclass(hint):
        return st.deferred(lambda: made(hint))
    if origin in (Union, UnionType):
        return st.one_of(*map(_of, inner))
    if origin is dict:
        return st.dictionaries(_of(inner[0]), _of(inner[1]), max_size=4)
    if origin is tuple:
        several = inner[-1] is Ellipsis
        return st.lists(_of(inner[0]), max_size=4).map(tuple) if several else st.tuples(*map(_of, inner))
    return st.from_type(hint)


SENT_EVENTS = st.one_of(*map(made, get_args(events.Event)))
SENT_MESSAGES = st.one_of(*map(made, get_args(feed.FeedMessage)))


# --- ids ---
def test_ids_are_unique_fit_in_a_url_and_sort_by_time() -> None:
    names = [new_id() for _ in range(1000)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", name) for name in names)
    assert [name[:10] for name in names] == sorted(name[:10] for name in names)  # the first ten say when


# --- tokens ---
def test_tokens_are_long_random_and_stored_as_their_hash() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"[\w-]{43}", token) for token in tokens)  # 256 bits in base64
    assert hash_token("abc") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("kind", list(TokenKind))
@pytest.mark.parametrize("accepted", list(TokenKind))
def test_a_token_is_good_for_its_own_kind_of_use_only(kind: TokenKind, accepted: TokenKind) -> None:
    credential = Credential("T1", kind, "ann")
    if kind is accepted:
        assert judge(credential, frozenset({accepted}), NOW) is credential
    else:
        with pytest.raises(SignInError, match=f"of the kind {kind}; one of the kind {accepted} is needed"):
            judge(credential, frozenset({accepted}), NOW)


@pytest.mark.parametrize(
    ("expires", "revoked", "said"),
    [
        (None, None, None),
        (NOW + 0.001, None, None),
        (NOW, None, "has expired"),
        (NOW - 1, None, "has expired"),
        (NOW + 1, NOW - 5, "was revoked"),
        (NOW - 1, NOW - 5, "was revoked"),
    ],
)
def test_an_expired_or_revoked_token_says_so(
    expires: float | None, revoked: float | None, said: str | None
) -> None:
    credential = Credential("T1", TokenKind.ADMIN, "ann", expires_at=expires, revoked_at=revoked)
    if said is None:
        assert judge(credential, frozenset({TokenKind.ADMIN}), NOW) is credential
        return
    with pytest.raises(SignInError, match=said) as caught:
        judge(credential, frozenset({TokenKind.ADMIN}), NOW)
    assert "`farm token new`" in caught.value.remedy


def test_an_unknown_token_is_nobody_s() -> None:
    with pytest.raises(SignInError, match="not one of this farm's") as caught:
        auth.judge(None, frozenset(TokenKind), NOW)
    assert "`farm up`" in caught.value.remedy


# --- events ---
@given(SENT_EVENTS)
def test_an_event_comes_back_through_json_as_it_was(event: Event) -> None:
    data = json.loads(json.dumps(events.to_dict(event)))
    back = events.from_dict(data)
    assert back == event
    assert type(back) is type(event)


@given(SENT_EVENTS)
def test_an_event_is_one_line_of_the_spool(event: Event) -> None:
    line = json.dumps(events.to_dict(event)).encode()
    assert line.splitlines() == [line]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"kind": "loading"},
        {"kind": "dreaming", "attempt_id": "A1", "seq": 1, "at": 1.0},
        {"kind": "step", "attempt_id": "A1", "seq": "first", "at": 1.0, "done": 1, "total": 2},
        {"kind": "failed", "attempt_id": "A1", "seq": 1, "at": 1.0, "failure_class": "odd", "message": ""},
    ],
)
def test_what_is_no_event_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        events.from_dict(data)


def test_every_kind_of_event_and_message_is_sent_in_these_tests() -> None:
    assert len(get_args(events.Event)) == 12
    assert len(get_args(feed.FeedMessage)) == 4


def test_the_last_words_are_four() -> None:
    assert frozenset({"done", "failed", "cancelled", "yielded"}) == events.FINAL_KINDS


# --- orders, reports, tickets ---
@given(made(wire.Order))
def test_an_order_comes_back_as_it_was(order: wire.Order) -> None:
    assert wire.order_from_dict(json.loads(json.dumps(wire.order_to_dict(order)))) == order


@given(made(wire.NodeReport))
def test_a_report_comes_back_as_it_was(report: wire.NodeReport) -> None:
    back = told_from_dict(json.loads(json.dumps(told_to_dict(Told("m", report))))).report
    assert back is not None
    assert back == report
    assert all(type(card.kind) is CardKind for card in back.cards)
    assert all(isinstance(card.compute_capability, tuple | None) for card in back.cards)


@given(made(wire.JoinTicket))
def test_a_ticket_comes_back_as_it_was(ticket: wire.JoinTicket) -> None:
    assert wire.ticket_from_dict(json.loads(json.dumps(wire.ticket_to_dict(ticket)))) == ticket


def test_an_order_with_a_plan_nobody_knows_is_refused() -> None:
    with pytest.raises(ValidationError):
        wire.order_from_dict({"attempt_id": "A1", "plan": {"placement": "elsewhere"}})
    assert MemoryPlan().parts == "resident"


def test_a_plan_with_a_field_that_is_gone_is_read_as_before() -> None:
    """`expandable_segments` was in every plan that a store holds, and is in those of an older head."""
    plan = MemoryPlan("by_stage", ring_mib=200)
    former = {**plan_to_json(plan), "expandable_segments": True}
    assert plan_from_json(former) == plan
    order = {
        "attempt_id": "A1",
        "job_id": "J1",
        "stage": "generate",
        "settings": settings_to_json(SETTINGS),
        "plan": former,
        "input_sha256": "0" * 64,
    }
    assert wire.order_from_dict(order).plan == plan


def test_names_of_actors_are_of_one_card_and_one_life_of_its_pc() -> None:
    names = {
        wire.worker_name("GPU-a", "r1"),
        wire.worker_name("GPU-b", "r1"),
        wire.worker_name("GPU-a", "r2"),
        wire.agent_name("n1", "r1"),
        wire.agent_name("n1", "r2"),
    }
    assert len(names) == 5


# --- the feed ---
@given(SENT_MESSAGES)
def test_a_message_of_the_feed_is_one_line_and_comes_back_as_it_was(message: FeedMessage) -> None:
    line = feed.to_line(message)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line != WAKE
    assert feed.from_line(line) == message


@pytest.mark.parametrize("line", [b"", b"{}\n", b'{"type": "song"}\n', b"wake\n", b'{"type": "job"'])
def test_what_is_no_message_of_the_feed_is_refused(line: bytes) -> None:
    with pytest.raises(ValidationError):
        feed.from_line(line)
