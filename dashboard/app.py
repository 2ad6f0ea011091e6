"""Puts the web process together: parts, guards, API, pages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from dashboard import frame, metrics, pages, problems, signin
from dashboard.api import (
    batches,
    calibration,
    catalogue,
    events,
    files,
    health,
    install,
    jobs,
    join,
    machines,
    plan,
    reach,
    stats,
    tokens,
    weights,
)
from dashboard.api import settings as farm_settings
from dashboard.headers import SecurityHeaders
from dashboard.limits import BodyLimit
from dashboard.openapi import describe
from dashboard.parts import make_parts
from dashboard.repeats import RepeatedGreetings
from dashboard.signin import SignedIn
from farm import __version__
from farm.clock import Clock
from farm.settings import DataDirectory, FarmSettings

API = "/api/v1"


def create_app(data: DataDirectory, settings: FarmSettings, clock: Clock | None = None) -> FastAPI:
    """The dashboard of one data directory, whose database is already migrated."""
    farm = make_parts(data, settings, clock)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        following = asyncio.create_task(farm.live.run())
        try:
            yield
        finally:
            farm.live.close()
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    app = FastAPI(
        title="Old-GPU farm",
        version=__version__,
        summary="One picture in, one video out, on the cards you have.",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere; ours are all local
        redoc_url=None,
    )
    app.state.parts = farm
    problems.add_handlers(app)
    for module in (
        jobs,
        batches,
        files,
        machines,
        catalogue,
        stats,
        plan,
        calibration,
        events,
        join,
        reach,
        weights,
        farm_settings,
        tokens,
    ):
        app.include_router(module.router, prefix=API)
    app.include_router(join.open_router)
    app.include_router(install.router)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(signin.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).with_name("static")), name="static")
    # Where a clip or an answer of the API fills the tab, no page says where the icon is, and browsers ask here.
    app.add_api_route(
        "/favicon.ico", lambda: RedirectResponse("/static/favicon.svg"), include_in_schema=False
    )
    app.include_router(pages.router)  # last: it has a page for every address that nothing else knows
    app.state.error_page = frame.error_page
    describe(app)
    app.add_middleware(BodyLimit, limit_bytes=lambda: int(farm.in_force().max_upload_mib * 2**20))
    app.add_middleware(SignedIn)
    app.add_middleware(RepeatedGreetings)
    app.add_middleware(problems.LastResort)
    app.add_middleware(SecurityHeaders)  # added last, so it is outermost: refusals carry the headers too
    return app
