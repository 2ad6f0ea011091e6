"""Whether a card is its owner's for now: the owner's rules, and the signs of the owner, weighed. Pure but for the rules' file.

What the owner said (pause, hours, temperature) always counts. Signs that the owner is there count with `--only-idle`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from farm.errors import BadInputError, ConfigurationError
from farm.hours import parse_hours
from farm.model import Tier
from farm.secret_files import ensure_private_directory, write_secret
from farm.tags import read_tags
from node_agent.readings import CardProgram

OWNER_GIB = 0.5
"""A program that draws and holds this much of a card is a game or the like; desktops and browsers that lie open hold less."""
DESKTOP = frozenset(
    {"Xorg", "Xwayland", "gnome-shell", "kwin_x11", "kwin_wayland", "plasmashell", "cinnamon", "mutter", "sway", "Hyprland"}
    | {"cosmic-comp", "xfwm4", "marco", "weston"}
)  # fmt: skip
"""They draw the desktop: there whether or not anyone sits before it."""
BUSY_SHARE = 0.5
"""The PC is at work for its owner when programs besides the farm's take this share of all its cores."""
COOLER_C = 5.0
"""How far a card must cool below the owner's limit before it takes work again: at the limit itself it would come and go."""


@dataclass(frozen=True, slots=True)
class OwnerRules:
    """What a PC's owner asked for with `farm join`.

    `max_temperature_c`: above it a card takes no new work. `cards`: the ids of those that the farm may use, all if empty. `tags`: words by
    which jobs may ask for this PC. `tier`: the band that its cards keep to, whatever their memory; None leaves it to that.
    """

    only_idle: bool = False
    hours: str | None = None
    max_temperature_c: float | None = None
    cards: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    tier: Tier | None = None

    FILE = "owner.json"

    def __str__(self) -> str:
        """For people: "only while nobody uses the PC; hours 22:00-08:00"; empty where nothing is set."""
        said = [
            "only while nobody uses the PC" if self.only_idle else "",
            f"hours {self.hours}" if self.hours is not None else "",
            f"no new work above {self.max_temperature_c:.0f} \N{DEGREE SIGN}C"
            if self.max_temperature_c
            else "",
            f"only the cards {', '.join(self.cards)}" if self.cards else "",
            f"tagged {', '.join(self.tags)}" if self.tags else "",
            f"kept to {self.tier} work" if self.tier is not None else "",
        ]
        return "; ".join(part for part in said if part)

    @classmethod
    def load(cls, home: Path) -> "OwnerRules":
        """The rules in a node home; none where there is no file.

        Raises:
            ConfigurationError: the file is there and cannot be read: rather no work than against the owner's will.
        """
        try:
            return _rules_of(json.loads((home / cls.FILE).read_text()))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, KeyError, TypeError, BadInputError) as error:
            raise ConfigurationError(
                f"The owner's rules in {home / cls.FILE} cannot be read: {error}.",
                "Start `farm join` again with the options that you want.",
            ) from error

    def save(self, home: Path) -> None:
        """Writes them for the node's agent, which reads them when it starts."""
        told = {
            "only_idle": self.only_idle,
            "hours": self.hours,
            "max_temperature_c": self.max_temperature_c,
            "cards": list(self.cards),
            "tags": list(self.tags),
            "tier": self.tier,
        }
        ensure_private_directory(home)
        write_secret(home / self.FILE, json.dumps(told) + "\n")


def _rules_of(told: Mapping[str, Any]) -> OwnerRules:
    limit = told["max_temperature_c"]
    rules = OwnerRules(
        bool(told["only_idle"]),
        None if told["hours"] is None else str(told["hours"]),
        None if limit is None else float(limit),
        tuple(str(card) for card in told["cards"]),
        read_tags((str(tag) for tag in told.get("tags") or ()), "tag"),
        Tier(told["tier"]) if told.get("tier") else None,
    )
    if rules.hours is not None:
        parse_hours(rules.hours)
    return rules


@dataclass(frozen=True, slots=True)
class Signs:
    """What the node sees of its owner and of one card. None where it cannot be known.

    `paused` is the reason of `farm local pause`. `programs` are those on the card that are not the farm's, `others_gib` what others hold of
    its memory. `at_keyboard`: keyboard or mouse were used lately; `cpu_share` what other programs take of all cores (0 to 1).
    """

    local: datetime
    paused: str | None = None
    programs: tuple[CardProgram, ...] | None = None
    others_gib: float | None = None
    at_keyboard: bool | None = None
    cpu_share: float | None = None
    temperature_c: float | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """Why a card is kept for its owner. `at_once`: the running job stops at its next step, and the card's memory is given back."""

    why: str
    at_once: bool = True


def kept_by_rule(rules: OwnerRules, signs: Signs, *, was_hot: bool = False) -> Kept | None:
    """What the owner's word says: pause, hours and temperature. `was_hot`: the card was kept for its temperature until now."""
    if signs.paused is not None:
        return Kept(signs.paused)
    if rules.hours is not None:
        hours = parse_hours(rules.hours)
        if not hours.allow(signs.local):
            opens = hours.opens(signs.local)
            return Kept(f"outside of the hours it may work, next from {opens}")
    limit, now = rules.max_temperature_c, signs.temperature_c
    if limit is not None and now is not None and now > limit - (COOLER_C if was_hot else 0.0):
        return Kept(f"it is {now:.0f} \N{DEGREE SIGN}C hot, its owner's limit is {limit:.0f}", at_once=False)
    return None


def kept_while_in_use(rules: OwnerRules, signs: Signs) -> Kept | None:
    """Whether the owner is there: what `--only-idle` minds."""
    if not rules.only_idle:
        return None
    program = _owner_program(signs)
    if program is not None:
        return Kept(f"{program} uses the card")
    if signs.programs is None and signs.others_gib is not None and signs.others_gib >= OWNER_GIB:
        return Kept(f"other programs hold {signs.others_gib:.1f} GiB of the card")
    if signs.at_keyboard:
        return Kept("somebody is at the PC")
    if signs.cpu_share is not None and signs.cpu_share >= BUSY_SHARE:
        return Kept(f"other programs keep {signs.cpu_share:.0%} of the PC's cores busy")
    return None


def _owner_program(signs: Signs) -> str | None:
    mine = [
        program
        for program in signs.programs or ()
        if program.name not in DESKTOP and (program.computes or (program.gib or 0.0) >= OWNER_GIB)
    ]
    return max(mine, key=lambda program: program.gib or 0.0).name if mine else None
