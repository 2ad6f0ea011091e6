"""What people see of jobs, cards and nodes: the store's values joined with what is live. The API and the pages share it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dashboard.parts import Parts
from dashboard.queue import eta, positions, why_pending
from farm.answers.catalogue import ModelView, PresetView
from farm.answers.forecasts import CalibrationView
from farm.answers.jobs import AttemptView, JobPage, JobUrls, JobView, ProgressView, StageView
from farm.answers.machines import CardView, NodeView
from farm.catalogue.downloads import download_gib
from farm.catalogue.models import ModelRow
from farm.catalogue.presets import Preset
from farm.feed import LiveCard, LiveJob
from farm.model import (
    Artifact,
    Attempt,
    AttemptStatus,
    Card,
    CardKind,
    Job,
    JobStatus,
    Node,
    StageKind,
)
from farm.planning.rules import precision_for
from farm.stages import stages_of
from farm.store.reader import JobSort
from farm.weights import Shelf, coming_text


def job_view(
    parts: Parts,
    job: Job,
    attempts: Sequence[Attempt] = (),
    *,
    position: int | None = None,
    stages: Sequence[StageView] = (),
    energy_wh: float | None = None,
) -> JobView:
    """One job; of a job in a list `attempts` holds only the newest, and `stages` nothing. `position` is as `positions` says."""
    live = parts.live.jobs.get(job.id)
    last = attempts[-1] if attempts else None
    return JobView(
        id=job.id,
        status=job.status,
        settings=job.settings,
        preset=job.preset,
        tier=job.tier,
        draft=job.draft,
        model=job.settings.model,
        prompt=job.settings.prompt,
        priority=job.priority,
        anywhere=job.anywhere,
        needs=list(job.needs),
        submitted_by=job.submitted_by,
        input_sha256=job.input_sha256,
        created_at=job.created_at,
        finished_at=job.finished_at,
        progress=_progress(job, live),
        position=position,
        eta=eta(parts, job, position),
        why_pending=why_pending(parts, job, live, position),
        unplaceable=job.unplaceable,
        failure=job.failure,
        cancel_requested=job.cancel_requested,
        rating=job.rating,
        starred=job.starred,
        removed_at=job.removed_at,
        batch=job.batch,
        card_id=last.card_id if last else None,
        card_name=last.card_name if last else None,
        attempts=[attempt_view(attempt) for attempt in attempts],
        stages=list(stages),
        energy_wh=energy_wh,
        urls=_urls(parts, job),
    )


def _progress(job: Job, live: LiveJob | None) -> ProgressView | None:
    if job.status != JobStatus.RUNNING or live is None:
        return None
    return ProgressView(
        done=live.done,
        total=live.total,
        seconds_per_step=live.seconds_per_step,
        eta_s=live.eta_s,
        phase=live.phase,
        stage=StageKind(live.stage),
    )


def _urls(parts: Parts, job: Job) -> JobUrls:
    base = f"/api/v1/jobs/{job.id}"
    running = job.status == JobStatus.RUNNING
    # Another address than the clip's still will have: a page shows again what it has of an address, whatever the headers say.
    thumbnail = f"{base}/thumbnail" if job.thumbnail_sha256 else f"{base}/thumbnail?of=input"
    return JobUrls(
        video=f"{base}/video" if job.video_sha256 and job.removed_at is None else None,
        thumbnail=thumbnail if job.removed_at is None else None,
        preview=f"{base}/preview" if running and preview_path(parts, job.id).exists() else None,
        input=f"{base}/input",
        log=f"{base}/log",
        page=f"/jobs/{job.id}",
    )


def preview_path(parts: Parts, job_id: str) -> Path:
    """The newest small picture of a running job."""
    return parts.data.previews / f"{job_id}.jpg"


def attempt_view(attempt: Attempt) -> AttemptView:
    """One try."""
    return AttemptView(
        id=attempt.id,
        number=attempt.number,
        stage=attempt.stage,
        node_id=attempt.node_id,
        card_id=attempt.card_id,
        card_name=attempt.card_name,
        status=attempt.status,
        memory_plan=attempt.memory_plan,
        assigned_at=attempt.assigned_at,
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        stage_seconds=attempt.stage_seconds,
        peak_gib=attempt.peak_gib,
        failure_class=attempt.failure_class,
        reason=attempt.reason,
        notes=list(attempt.notes),
        predicted_s=attempt.predicted_s,
        predicted_gib=attempt.predicted_gib,
        energy_wh=attempt.energy_wh,
        predicted_low_s=attempt.predicted_low_s,
        predicted_high_s=attempt.predicted_high_s,
        predicted_basis=attempt.predicted_basis,
        resumed_step=attempt.resumed_step,
    )


def stored_view(parts: Parts, job: Job) -> JobView:
    """A job that was stored just now. Costs the same however long the queue is: with no word of the scheduler it has no position yet."""
    stand = {} if parts.live.told is None else positions(parts, [job])
    return job_view(parts, job, position=stand.get(job.id))


def show_job(parts: Parts, job_id: str) -> JobView:
    """One job with all its attempts and its place in the queue.

    Raises:
        NotFoundError: there is none of this id.
    """
    job, attempts = parts.reader.job(job_id), parts.reader.attempts(job_id)
    stages = stage_views(job, attempts, parts.reader.stage_artifacts(job_id))
    position = positions(parts, [job]).get(job_id)
    return job_view(parts, job, attempts, position=position, stages=stages, energy_wh=drawn_by(attempts))


def drawn_by(attempts: Sequence[Attempt]) -> float | None:
    """What these attempts drew together, watt-hours; None where no card told its power."""
    known = [attempt.energy_wh for attempt in attempts if attempt.energy_wh is not None]
    return sum(known) if known else None


def stage_views(job: Job, attempts: Sequence[Attempt], left: Mapping[StageKind, Artifact]) -> list[StageView]:
    """A job's stages, first to last; `left` is what its finished ones left for the next."""
    every = stages_of(job.settings)
    at = every.index(job.stage)
    found = []
    for number, stage in enumerate(every):
        status = "finished" if number < at else str(job.status) if number == at else "not begun"
        clip = left[stage].sha256 if stage in left else job.video_sha256 if stage is every[-1] else None
        tries = [one for one in attempts if one.stage is stage]
        good = [one for one in tries if one.status is AttemptStatus.FINISHED]
        last = (good or tries)[-1] if tries else None
        found.append(
            StageView(
                stage=stage,
                status=status,
                attempts=len(tries),
                card_id=last.card_id if last else None,
                card_name=last.card_name if last else None,
                seconds=last.finished_at - last.assigned_at if last and last.finished_at else None,
                sha256=clip,
            )
        )
    return found


def show_jobs(
    parts: Parts,
    *,
    status: str | None = None,
    model: str | None = None,
    card: str | None = None,
    q: str | None = None,
    batch: str | None = None,
    ended_since: float | None = None,
    sort: JobSort = "newest",
    cursor: int | None = None,
    limit: int = 50,
) -> JobPage:
    """A page of jobs, each with its newest attempt, and with what all of them drew."""
    page = parts.reader.jobs(
        status=status,
        model=model,
        card=card,
        q=q,
        batch=batch,
        ended_since=ended_since,
        sort=sort,
        cursor=cursor,
        limit=limit,
    )
    tries = parts.reader.attempts_of([job.id for job in page.jobs])
    stand = positions(parts, page.jobs)
    views = [
        job_view(parts, job, mine[-1:], position=stand.get(job.id), energy_wh=drawn_by(mine))
        for job in page.jobs
        for mine in (tries.get(job.id, []),)
    ]
    return JobPage(jobs=views, cursor=page.cursor)


def card_view(card: Card, live: LiveCard | None, node_name: str, *, connected: bool) -> CardView:
    """One card; without word from the scheduler its state is "not known", never a stale one."""
    state, why = _stands(live, connected=connected)
    capability = card.compute_capability
    return CardView(
        id=card.id,
        node_id=card.node_id,
        node_name=node_name,
        kind=card.kind,
        name=card.name,
        vram_gib=card.vram_gib,
        usable_gib=card.usable_gib,
        band=card.band,
        compute_capability=f"{capability[0]}.{capability[1]}" if capability else None,
        models=sorted(card.models),
        state=state,
        why=why or card.trouble or card.paused,
        job_id=live.job_id if live and connected else None,
        silent_s=live.silent_s if live and connected else None,
        last_seen=card.last_seen,
        driver=card.driver,
        pcie=card.pcie,
        bus_gb_s=card.bus_gb_s,
        ram_gib=card.ram_gib,
        precision=precision_for(card) if card.kind is not CardKind.CPU else None,
        notice=card.notice,
        others_gib=card.others_gib,
        facts=card.facts,
        vitals=live.vitals if live and connected else None,
        fetching=[coming_text(one) for one in card.coming],
    )


def _stands(live: LiveCard | None, *, connected: bool) -> tuple[str, str | None]:
    """A card's state, and why."""
    if not connected:
        return "not known", "The scheduler is not running, so nobody has asked the card."
    if live is None:
        return "not answering", "Its PC has not reported it since the scheduler started."
    return live.state, live.why


def card_states(parts: Parts) -> dict[str, str]:
    """The states of all cards by their ids, as `show_cards` has them: for pages that tell no more of most cards than how the farm is."""
    live, connected = parts.live.cards, parts.live.connected
    return {
        card_id: _stands(live.get(card_id), connected=connected)[0] for card_id in parts.reader.card_ids()
    }


def show_cards(parts: Parts, ids: Collection[str] | None = None) -> list[CardView]:
    """All cards, or those of them that have these ids, by node and name."""
    return _cards_of(parts, parts.reader.node_names(), ids)


def _cards_of(parts: Parts, names: Mapping[str, str], ids: Collection[str] | None = None) -> list[CardView]:
    live, connected = parts.live.cards, parts.live.connected
    return [
        card_view(card, live.get(card.id), names.get(card.node_id, card.node_id), connected=connected)
        for card in parts.reader.cards(ids)
    ]


def show_nodes(parts: Parts) -> list[NodeView]:
    """All nodes with their cards, by name."""
    nodes = parts.reader.nodes()
    of: dict[str, list[CardView]] = {node.id: [] for node in nodes}
    for card in _cards_of(parts, {node.id: node.name for node in nodes}):
        if card.node_id in of:  # a PC that joined since its cards were read comes with the next look
            of[card.node_id].append(card)
    return [node_view(node, of[node.id]) for node in nodes]


def show_node(parts: Parts, node_id: str) -> NodeView:
    """One node with its cards.

    Raises:
        NotFoundError: there is none of this id.
    """
    node = parts.reader.node(node_id)
    return node_view(node, [card for card in show_cards(parts) if card.node_id == node.id])


def node_view(node: Node, cards: list[CardView]) -> NodeView:
    """One node."""
    return NodeView(
        id=node.id,
        name=node.name,
        address=node.address,
        last_seen=node.last_seen,
        versions=node.versions,
        cards=cards,
        ram_gib=node.ram_gib,
        ram_free_gib=node.ram_free_gib,
        drained_at=node.drained_at,
        fetching=list(dict.fromkeys(line for card in cards for line in card.fetching)),
        kept_out=node.kept_out,
        owner_rules=node.owner_rules,
    )


def show_calibration(parts: Parts) -> CalibrationView:
    """How often the last predictions held, all together and by what they rested on."""
    return parts.calibrated.view()


def default_preset(parts: Parts) -> str:
    """What a job gets that names neither preset nor model: diffusion where a card can, the draft elsewhere."""
    able = frozenset[str]().union(*(card.models for card in parts.reader.cards()))
    diffusion = parts.presets["preview"]
    return diffusion.name if diffusion.model in able else "draft"


def preset_view(preset: Preset, model: ModelRow) -> PresetView:
    """One preset."""
    return PresetView(
        name=preset.name,
        title=preset.title,
        model=preset.model,
        width=preset.width,
        height=preset.height,
        frames=preset.frames,
        steps=preset.steps,
        guidance=preset.guidance,
        fps=preset.fps,
        smooth=preset.smooth,
        draft=model.draft,
    )


def show_models(parts: Parts) -> list[ModelView]:
    """All models, with what the head has of them."""
    here = {one.name: one.bytes for one in Shelf(parts.data.models).manifests()}
    return [model_view(row, here.get(row.name)) for row in parts.models.values()]


def model_view(model: ModelRow, weights_bytes: int | None = None) -> ModelView:
    """One model; `weights_bytes` is the size of the weights that the head has, None while it has none."""
    limits = model.limits
    return ModelView(
        name=model.name,
        title=model.title,
        licence=model.licence,
        source=model.source,
        download_gib=download_gib(model),
        weights_bytes=weights_bytes,
        draft=model.draft,
        devices=list(model.devices),
        multiple=limits.multiple,
        min_side=limits.min_side,
        max_side=limits.max_side,
        max_pixels=limits.max_pixels,
        max_frames=limits.max_frames,
        max_steps=limits.max_steps,
    )
