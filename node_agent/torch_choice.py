"""Which torch suits this PC's cards, for the script that installs it: `python -m node_agent.torch_choice` prints it as pip's arguments."""

from collections.abc import Iterable

from farm.catalogue.models import load_models
from farm.catalogue.rules import build_for_all
from farm.doctor import OLDEST_SERVED
from farm.model import CardKind
from farm.wire import CardReport
from node_agent import probe


def pip_arguments(cards: Iterable[CardReport]) -> str:
    """The build that serves most of the cards, as "torch==2.13.0+cu126 --index-url URL"; empty where no card needs one."""
    gpus = [card.compute_capability or OLDEST_SERVED for card in cards if card.kind is CardKind.CUDA]
    build = build_for_all(gpus) if gpus else None
    return build.pip_arguments if build is not None else ""


if __name__ == "__main__":
    print(pip_arguments(probe.cards("this-pc", load_models(None))))
