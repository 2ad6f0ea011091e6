"""A farm in the middle of its work, for looking at pages: two PCs, three cards, and jobs of every status with real files."""

import io
import subprocess
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import imageio_ffmpeg
import numpy as np
from PIL import Image

from farm.artifacts import ArtifactStore
from farm.catalogue.models import builtin_models
from farm.catalogue.presets import presets
from farm.feed import LiveCard, LiveJob, Snapshot
from farm.ids import new_id
from farm.model import (
    Attempt,
    Card,
    CardKind,
    FailureClass,
    Job,
    MemoryPlan,
    Node,
    PcieLink,
    RenderSettings,
    Tier,
)
from farm.planning.tiers import tier_of
from farm.states import AttemptMove, JobMove
from farm.store.claims import Assignment
from farm.store.engine import open_engine
from farm.store.requests import NewJob, RequestKind, Requests
from farm.store.telemetry import Figures, Row
from farm.store.writer import Result
from farm.vitals import Vitals
from tests.integration.dashboard_server import RunningDashboard
from tests.pictures import person, product, street

NODES = (
    Node("node-attic", "attic", "192.168.1.20", versions={"python": "3.11.9", "ray": "2.60.0"}),
    Node(
        "node-desk",
        "desk",
        "192.168.1.31",
        versions={"python": "3.11.2", "ray": "2.60.0"},
        owner_rules="only while nobody uses the PC; hours 22:00-08:00",
    ),
)
RTX_2060 = Card(
    id="GPU-5f2b0c1e-2060",
    node_id="node-attic",
    kind=CardKind.CUDA,
    name="RTX 2060",
    vram_gib=6.0,
    usable_gib=5.4,
    band=Tier.POST,
    compute_capability=(7, 5),
    driver="550.120",
    pcie=PcieLink(3, 4, 16),
    bus_gb_s=2.96,
    ram_gib=15.5,
    notice="0.5 GiB less of its memory is used: Windows moved some of it to the PC's own.",
    models=frozenset({"animatic", "i2vgen-xl"}),
)
RTX_3060 = replace(
    RTX_2060,
    id="GPU-91d3aa7c-3060",
    node_id="node-desk",
    name="RTX 3060",
    vram_gib=12.0,
    usable_gib=11.2,
    band=Tier.QUALITY,
    compute_capability=(8, 6),
    others_gib=0.5,
)
CPU = Card(
    id="CPU-node-desk",
    node_id="node-desk",
    kind=CardKind.CPU,
    name="Ryzen 5 3600",
    models=frozenset({"animatic"}),
)
READ = Vitals(1.0, utilization=0.97, memory_used_gib=5.9, temperature_c=68.0, power_w=162.0)
_PICTURES = {"person": person, "product": product, "street": street}


@cache
def picture(name: str, side: int = 640) -> bytes:
    """A test picture as JPEG."""
    out = io.BytesIO()
    _PICTURES[name](side, side).image.save(out, "JPEG", quality=88)
    return out.getvalue()


@cache
def video(name: str, side: int = 512, frames: int = 16, fps: int = 8) -> bytes:
    """A real clip (H.264, yuv420p; fragmented, since a pipe cannot seek back): a slow zoom into the picture.

    Without B-frames, with which a fragmented file begins late; the farm's own clips begin at 0.
    """
    image = Image.open(io.BytesIO(picture(name)))
    raw = b"".join(
        np.asarray(
            image.resize((side, side), box=(i * 4, i * 4, image.width - i * 4, image.height - i * 4))
        ).tobytes()
        for i in range(frames)
    )
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += [
        "-s",
        f"{side}x{side}",
        "-r",
        str(fps),
        "-i",
        "-",
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",  # a third of the time for as good a clip
        "-bf",
        "0",
        "-pix_fmt",
        "yuv420p",
    ]
    command += ["-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "-"]
    return subprocess.run(command, input=raw, capture_output=True, check=True).stdout


@dataclass
class FarmInUse:
    """Puts jobs into a running dashboard's store, as submit and the scheduler would."""

    farm: RunningDashboard

    def __post_init__(self) -> None:
        self.requests = Requests(open_engine(self.farm.data.database_url, writes=True))
        self.artifacts = ArtifactStore(self.farm.data.artifacts)

    def join(self, *cards: Card, **silent_s: float) -> None:
        """The two PCs report these cards; `node_attic=14.0` says that this one did so 14 s ago."""
        for node in NODES:
            mine = [card for card in cards if card.node_id == node.id]
            if mine:
                self.farm.registry.see_node(
                    node, mine, time.time() - silent_s.get(node.id.replace("-", "_"), 0.0)
                )

    def queue(self, name: str, preset: str, prompt: str = "", *, ago_s: float = 0.0, **changes: Any) -> Job:
        """A queued job that was submitted `ago_s` seconds ago."""
        p = presets()[preset]
        settings = RenderSettings(
            model=p.model,
            width=p.width,
            height=p.height,
            frames=p.frames,
            steps=p.steps,
            guidance=p.guidance,
            fps=p.fps,
            smooth=p.smooth,
            seed=2_718_281_828,
            prompt=prompt,
        )
        settings = replace(settings, **changes)
        new = NewJob(
            settings=settings,
            tier=tier_of(settings),
            draft=builtin_models()[p.model].draft,
            picture=self.artifacts.put(picture(name), "image/jpeg"),
            preset=preset,
            submitted_by="ann",
        )
        job, _ = self.requests.submit(new, time.time() - ago_s)
        return job

    def start(self, job: Job, card: Card, *, ago_s: float = 0.0) -> Attempt:
        """The job renders on the card since `ago_s` seconds."""
        at = time.time() - ago_s
        claim = Assignment(
            new_id(),
            job.id,
            card.node_id,
            card.id,
            card.name,
            MemoryPlan(parts="by_stage"),
            predicted_s=None if card.kind is CardKind.CPU else 104.0,
            predicted_gib=None if card.kind is CardKind.CPU else 5.1,
        )
        (attempt,) = self.farm.writer.assign([claim], at)
        self.farm.writer.progress(attempt.id, AttemptMove.LOAD, at + 0.2, 1)
        self.farm.writer.progress(attempt.id, AttemptMove.RUN, at + 6.5, 2)
        return attempt

    def finish(self, attempt: Attempt, name: str, *, ago_s: float = 0.0, peak_gib: float = 4.7) -> None:
        """The attempt gives a real clip."""
        clip = self.artifacts.put(video(name), "video/mp4")
        still = self.artifacts.put(picture(name, 320), "image/jpeg")
        parts = {
            "load": 6.3,
            "encode_prompt": 0.4,
            "encode_image": 0.6,
            "denoise": 94.8,
            "decode": 7.2,
            "encode": 0.9,
        }
        if attempt.card_id == CPU.id:
            parts, peak_gib = {"depth": 0.8, "render": 3.4, "encode": 0.5}, 0.4
        at = time.time() - ago_s
        self.farm.writer.finish(
            attempt.id, Result(clip.sha256, still.sha256, parts, peak_gib, rendered_at=at), at
        )
        if attempt.card_id != CPU.id:  # a CPU tells no power
            self.farm.writer.drew(attempt.id, 4.3)

    def warm(self, card: Card) -> None:
        """The card told for a day how it is: at work every other hour, and two hours long nothing, some eight hours ago."""
        now = time.time() // 300 * 300
        rows = []
        for part in range(288):
            if 96 <= part < 120:
                continue
            busy = part // 12 % 2 == 0
            figures = Figures(
                utilization=0.96 if busy else 0.02,
                memory_used_gib=(8.6 if part > 144 else 5.9) if busy else 0.6,
                temperature_c=(68.0 if part % 12 > 1 else 57.0) if busy else 41.0,
            )
            rows.append(Row(card.id, 300, now - 300 * part, figures))
        self.farm.writer.telemetry.keep(rows)

    def preview(self, job: Job, name: str) -> None:
        """A first look into a running render."""
        (self.farm.data.previews / f"{job.id}.jpg").write_bytes(picture(name, 320))


def fill(farm: RunningDashboard) -> tuple[Snapshot, dict[str, Job]]:
    """A farm with a day's work behind it; also what its scheduler says now, and a job of each status by name."""
    use = FarmInUse(farm)
    use.join(RTX_2060, RTX_3060, CPU, node_attic=14.0)
    use.warm(RTX_3060)
    day = 86_400.0
    finished = use.queue("street", "standard", "Rain on the street, slow push forward", ago_s=7200)
    use.finish(use.start(finished, RTX_3060, ago_s=7190), "street", ago_s=7060)
    use.requests.rate(finished.id, 4)
    old = use.queue(
        "person", "quality", "She turns her head and smiles, hair moves in the wind", ago_s=2 * day
    )
    use.finish(use.start(old, RTX_3060, ago_s=2 * day - 5), "person", ago_s=2 * day - 400, peak_gib=8.6)
    retried = use.queue(
        "product", "preview", "Studio turntable, soft light wanders over the bottle", ago_s=4000
    )
    lost = use.start(retried, RTX_2060, ago_s=3990)
    farm.writer.lose(lost.id, "Nothing was heard of RTX 2060 on attic for 30 s.", time.time() - 3900)
    use.finish(use.start(retried, RTX_3060, ago_s=3890), "product", ago_s=3770)
    failed = use.queue("street", "native", "Aerial shot over the roofs at dusk", ago_s=2900)
    oom = use.start(failed, RTX_2060, ago_s=2890)
    farm.writer.fail(
        oom.id,
        FailureClass.OUT_OF_MEMORY,
        "RTX 2060 ran out of memory while decoding: 5.4 GiB were usable, 7.9 were needed. "
        "Ask for a smaller size or fewer frames, or let a 12 GB card take it.",
        time.time() - 2850,
        then=JobMove.GIVE_UP,
    )
    cancelled = use.queue("person", "preview", "Close-up, blinking", ago_s=2500)
    farm.writer.cancel_queued(cancelled.id, time.time() - 2400)
    draft = use.queue("street", "draft", "pan left", ago_s=900)
    use.finish(use.start(draft, CPU, ago_s=890), "street", ago_s=884)
    for i, (what, prompt) in enumerate((("product", "zoom in"), ("person", ""), ("product", "orbit slowly"))):
        more = use.queue(what, "draft", prompt, ago_s=800 - 60 * i)
        use.finish(use.start(more, CPU, ago_s=798 - 60 * i), what, ago_s=790 - 60 * i)
    running = use.queue("person", "standard", "A gust of wind, leaves drift past, camera stays", ago_s=95)
    attempt = use.start(running, RTX_3060, ago_s=80)
    use.preview(running, "person")
    queued = use.queue("product", "standard", "Condensation drips down the glass", ago_s=60)
    stuck = use.queue(
        "street", "quality", "The whole street at 60 fps", ago_s=50, width=1280, height=768, frames=48
    )
    farm.writer.mark_unplaceable(
        {
            stuck.id: "No card can run it. The nearest is RTX 3060: needs 21.4 GiB, RTX 3060 has 11.2 usable. "
            "Ask for 16 frames at 1280 x 768."
        }
    )
    leaving = use.queue("street", "draft", "zoom out", ago_s=20)
    use.requests.ask(RequestKind.CANCEL, leaving.id, time.time())
    live = LiveJob(
        running.id,
        "running",
        done=23,
        total=50,
        seconds_per_step=1.84,
        eta_s=57.0,
        card_id=RTX_3060.id,
        card_name=RTX_3060.name,
        attempt_id=attempt.id,
        phase="running",
        preview=3,
    )
    snapshot = Snapshot(
        jobs=(live, LiveJob(queued.id, "queued", why="Waits for RTX 3060, which is busy.")),
        cards=(
            LiveCard(
                RTX_2060.id,
                "node-attic",
                "attic",
                "RTX 2060",
                "not answering",
                silent_s=14.0,
                why="Its PC may be asleep, or its network is down.",
            ),
            LiveCard(
                RTX_3060.id,
                "node-desk",
                "desk",
                "RTX 3060",
                "busy",
                job_id=running.id,
                vitals=READ,
                others_gib=0.5,
            ),
            LiveCard(CPU.id, "node-desk", "desk", CPU.name, "idle"),
        ),
    )
    jobs = {
        "finished": finished,
        "retried": retried,
        "failed": failed,
        "cancelled": cancelled,
        "draft": draft,
        "running": running,
        "queued": queued,
        "stuck": stuck,
    }
    return snapshot, jobs
