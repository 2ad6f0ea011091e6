"""How the farm is set up: tiers, storage, models on each PC, and what it is made of. `dashboard.api.settings` changes it."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from dashboard.api.settings import show_settings
from dashboard.frame import Farm, page
from dashboard.views import show_models, show_nodes
from dashboard.words import THIN, gib
from farm import __version__
from farm.answers.catalogue import ModelView
from farm.answers.machines import NodeView
from farm.auth import Scope
from farm.planning.precedence import AFFINITY, AGEING_S, PATIENCE
from farm.retention import DAY_S, Limits

router = APIRouter(include_in_schema=False)

TIERS = {
    "soft": "A job goes to cards of its band. Larger cards take preview work only while no quality work waits that they could start, and "
    "a job for whose band there is no card goes to any card that has the memory.",
    "strict": "A job goes only to cards of its band.",
    "off": "Any card that has the memory takes any job.",
}

TITLES = {
    "tiers": "Tiers",
    "keep_days": "Days",
    "keep_gb": "GB",
    "lease_s": "Seconds",
    "max_upload_mib": "Largest picture",
}
"""What a setting is called where it is told who changed it."""


@dataclass(frozen=True, slots=True)
class Storage:
    """The data directory and its disk; bytes."""

    folder: Path
    database: int
    disk_free: int
    disk_all: int


@router.get("/settings")
def settings_page(request: Request, farm: Farm) -> Response:
    """What holds, and how to change it."""
    nodes = show_nodes(farm)
    settings = farm.in_force()
    limits = Limits(settings.keep_days, settings.keep_gb)
    me, models = request.state.credential, show_models(farm)
    admin = me.may(Scope.ADMIN)
    context = {
        "limits": limits,
        "due": 0 if limits.days is None else farm.retention.due(farm.now() - limits.days * DAY_S),
        "stock": farm.retention.stock() if limits.any else None,
        "knobs": {one.name: one for one in show_settings(farm)},
        "titles": TITLES,
        "users": farm.users.all() if admin else None,
        "tokens": farm.users.tokens(farm.now()) if admin else None,
        "counts": farm.reader.counts(),
        "settings": settings,
        "tiers": TIERS,
        "hours_in_vain": AGEING_S / 3600.0,
        "patience": PATIENCE,
        "affinity": AFFINITY,
        "storage": storage(farm.data.root, farm.data.database),
        "nodes": [(node, models_of(node)) for node in nodes],
        "states": [card.state for node in nodes for card in node.cards],
        "models": models,
        "weights": {model.name: weights_size(model) for model in models},
        "version": __version__,
    }
    return page(request, "settings.html", context)


def storage(folder: Path, database: Path) -> Storage:
    """What lies there now. The write-ahead log counts to the database."""
    disk = shutil.disk_usage(folder)
    files = (database, database.with_name(f"{database.name}-wal"))
    return Storage(folder, sum(file.stat().st_size for file in files if file.exists()), disk.free, disk.total)


def models_of(node: NodeView) -> dict[str, list[str]]:
    """Each model that lies on a PC, as its cards tell, with the names of those that can run it."""
    found: dict[str, list[str]] = {}
    for card in node.cards:
        for model in card.models:
            found.setdefault(model, []).append(card.name)
    return dict(sorted(found.items()))


def weights_size(model: ModelView) -> str:
    """What a model's weights take of a PC's disk: as they lie on the head, where they do, else as the catalogue has it."""
    if model.weights_bytes is not None:
        return gib(model.weights_bytes / 2**30)
    if model.download_gib is None:
        return "size not known"
    return f"about{THIN}{gib(model.download_gib)}" if model.download_gib else "comes with the farm"
