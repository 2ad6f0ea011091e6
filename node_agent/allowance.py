"""What one attempt may take of its card and its PC: what the head reckoned with, corrected by what is seen there. Pure."""

import math
from dataclasses import replace

from farm.catalogue.models import ModelRow
from farm.model import MemoryPlan
from farm.planning.memory import HELD, UNKNOWN, Room, peak_gib
from farm.wire import Order
from node_agent.faults import Fault
from node_agent.ladder import MemoryReading, Retry, held_too_low


class Allowance:
    """The memory of one attempt, GiB."""

    def __init__(self, order: Order, row: ModelRow | None) -> None:
        """`row`: the model's, None where plans make no difference."""
        self._order = order
        self._row = row
        self._all_gib: float | None = None
        """What the whole card had to give, once the expected peak was found to be too low: from then on nothing is held to it."""

    def by_law(self, plan: MemoryPlan) -> float:
        """The peak under a plan by the law alone; 0 where plans make no difference."""
        return 0.0 if self._row is None else peak_gib(self._row, self._order.settings, plan)

    def expected_gib(self, plan: MemoryPlan) -> float | None:
        """The peak under a plan: what the head has learned of this card counts too, where it is more than the law."""
        by_law = self.by_law(plan)
        if not by_law:
            return None
        if self._all_gib is not None:
            return max(by_law, self._all_gib)
        return by_law * max(1.0, self._over_law())

    def room(self, memory: MemoryReading | None, ram_gib: float) -> Room:
        """What is left of the order's room, by a reading of the card's memory and what a render may take of the PC's."""
        room = self._order.room or UNKNOWN
        ram = min(math.inf if room.ram_gib is None else room.ram_gib, ram_gib)
        if memory is not None:  # a room is counted in what the law says
            room = replace(room, usable_gib=min(room.usable_gib, memory.available_gib / self._over_law()))
        return replace(room, ram_gib=None if math.isinf(ram) else ram)

    def left_to_others_gib(self, memory: MemoryReading) -> float:
        """What of the card the planner left to other programs: they held it already, as a desktop does while its PC is on."""
        room = self._order.room
        return 0.0 if room is None else max(0.0, memory.whole_gib - room.usable_gib * self._over_law())

    def held_too_low(self, fault: Fault, plan: MemoryPlan, memory: MemoryReading) -> Retry | None:
        """Another try under the same plan with all of the card, where a render ran out of what it was held to; None after the first."""
        expected = self.expected_gib(plan)
        if self._all_gib is not None or expected is None:
            return None
        retry = held_too_low(fault, plan, HELD * expected, memory)
        if retry is not None:
            self._all_gib = memory.available_gib
        return retry

    def _over_law(self) -> float:
        """How many times what the law says this card's renders take, as the head has learned; 1 where it has learned nothing."""
        by_law = self.by_law(self._order.plan)
        return self._order.predicted_gib / by_law if by_law and self._order.predicted_gib else 1.0
