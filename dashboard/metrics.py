"""`/metrics` for Prometheus: what the farm is and does, read anew at every scrape."""

from collections.abc import Iterator
from typing import Annotated, get_args

from fastapi import APIRouter, Depends
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.responses import Response

from dashboard.parts import Parts, parts
from dashboard.problems import documented
from dashboard.views import show_cards
from farm import __version__
from farm.answers.machines import CardView
from farm.feed import CardState
from farm.store.throughput import WINDOWS

router = APIRouter(tags=["operations"])

STATES = (*get_args(CardState), "not known")
_CARD = ("card", "name", "node")


class FarmCollector(Collector):
    """The farm's figures. A reading that is missing has no sample, as Prometheus wants it, never a nought."""

    def __init__(self, farm: Parts) -> None:
        self._farm = farm

    def collect(self) -> Iterator[Metric]:
        """All families, from the store and the scheduler's feed."""
        info = GaugeMetricFamily("farm_info", "The farm's version.", labels=("version",))
        info.add_metric((__version__,), 1)
        yield info
        yield GaugeMetricFamily(
            "farm_scheduler_up", "Whether the scheduler answers.", float(self._farm.live.connected)
        )
        jobs = GaugeMetricFamily("farm_jobs", "Jobs in the store by status.", labels=("status",))
        for status, count in self._farm.reader.counts().items():
            jobs.add_metric((status,), count)
        yield jobs
        cards = show_cards(self._farm)
        yield from self._standing(cards)
        yield from self._done(cards)

    def _standing(self, cards: list[CardView]) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "farm_card_state", "1 for the state a card is in.", labels=(*_CARD, "state")
        )
        seen = GaugeMetricFamily(
            "farm_card_last_seen_timestamp_seconds", "When it was last heard of.", labels=_CARD
        )
        memory = GaugeMetricFamily("farm_card_memory_bytes", "A card's memory.", labels=(*_CARD, "kind"))
        speed = GaugeMetricFamily("farm_card_seconds_per_step", "Of the render it is at now.", labels=_CARD)
        for card in cards:
            of = (card.id, card.name, card.node_name)
            for each in STATES:
                state.add_metric((*of, each), float(card.state == each))
            if card.last_seen is not None:
                seen.add_metric(of, card.last_seen)
            for kind, gib in (("all", card.vram_gib), ("usable", card.usable_gib)):
                if gib is not None:
                    memory.add_metric((*of, kind), gib * 2**30)
            live = self._farm.live.jobs.get(card.job_id or "")
            if live is not None and live.seconds_per_step is not None:
                speed.add_metric(of, live.seconds_per_step)
        yield from (state, seen, memory, speed)

    def _done(self, cards: list[CardView]) -> Iterator[Metric]:
        until = self._farm.now()
        done = self._farm.throughput.done([card.id for card in cards], until - WINDOWS["1h"].seconds, until)
        clips = GaugeMetricFamily("farm_card_clips_per_hour", "Clips of the last hour.", labels=_CARD)
        success = GaugeMetricFamily(
            "farm_card_success_ratio", "Attempts of the last hour that succeeded.", labels=_CARD
        )
        busy = GaugeMetricFamily(
            "farm_card_utilization_ratio", "Share of the last hour in which it had work.", labels=_CARD
        )
        for card in cards:
            of, its = (card.id, card.name, card.node_name), done[card.id]
            for family, value in (
                (clips, its.clips_per_hour),
                (success, its.success_rate),
                (busy, its.utilization),
            ):
                if value is not None:
                    family.add_metric(of, value)
        yield from (clips, success, busy)


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses=documented(401) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(farm: Annotated[Parts, Depends(parts)]) -> Response:
    """The farm's figures in Prometheus' text format. Scrape it with a token: `authorization: {credentials: TOKEN}`."""
    registry = CollectorRegistry()
    registry.register(FarmCollector(farm))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
