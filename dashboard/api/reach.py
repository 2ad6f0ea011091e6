"""Whether the head can dial a node: Ray's head does so all the time, and without it a node hangs and nobody knows why."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, IPvAnyAddress

from dashboard.api.join import ray_facts
from dashboard.parts import Parts, parts, who
from dashboard.problems import documented
from farm.auth import Credential
from farm.daemons import RayPorts
from farm.errors import SignInError
from farm.reach import why_unreachable
from farm.wire import Reach

router = APIRouter(tags=["joining"])

DIAL_S = 2.0
"""On a LAN a connection takes milliseconds; a firewall that drops packets never answers. Below the caller's own limit of 5 s."""


class ReachWish(BaseModel):
    """Where the node listens just now, to be dialled: some of the ports that its Ray will use."""

    address: IPvAnyAddress
    ports: Annotated[list[Annotated[int, Field(ge=1024, le=65535)]], Field(min_length=1, max_length=8)]
    first_port: Annotated[
        int,
        Field(ge=1024, le=65535 - RayPorts.SIZE, description="the first of all ports that its Ray will use"),
    ]


@router.post("/nodes/reach", summary="Try to dial a node", responses=documented(401, 422, 503))
async def reach(
    farm: Annotated[Parts, Depends(parts)],
    me: Annotated[Credential, Depends(who)],
    request: Request,
    wish: ReachWish,
) -> Reach:
    """Connects to each port once (bearer: the node's own token), and tells which did not answer and why. The page Cards shows it too.

    A node can make the head knock at ports in this way. It learns no more than whether something listens, and runs the farm's code anyway.
    """
    if me.node_id is None:
        raise SignInError("This token belongs to no node.", "Only `farm join` on a node calls this.")
    address = str(wish.address)
    told = await asyncio.gather(*(_dial(address, port) for port in wish.ports))
    failed = {port: why for port, why in zip(wish.ports, told, strict=True) if why is not None}
    found = Reach(failed=failed, seen_as=request.client.host if request.client else "")
    head = ray_facts(farm).address.rpartition(":")[0]
    why = why_unreachable(found, address, head, RayPorts(wish.first_port), pc=me.name)
    await asyncio.to_thread(farm.registry.keep_out, me.node_id, why)
    return found


async def _dial(address: str, port: int) -> str | None:
    """None if the port answers, else why not."""
    try:
        async with asyncio.timeout(DIAL_S):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return f"no answer within {DIAL_S:g} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    writer.close()
    return None
