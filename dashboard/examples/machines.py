"""The PC, its card and what it got done; how it joined, and the weights that it fetched."""

from dataclasses import replace

from dashboard.api.install import FarmFacts
from dashboard.examples import names
from dashboard.joining.lines import linux_line, windows_line
from farm.answers.figures import BenchSettingView, BenchView, Throughput, ThroughputPart
from farm.answers.forecasts import CalibrationView
from farm.answers.keeping import TokenView
from farm.answers.machines import CardView, NodeView, TelemetryPoint
from farm.model import CardKind, PcieLink, Tier
from farm.vitals import CardFacts, Vitals
from farm.weights import Manifest, WeightFile
from farm.wire import JoinTicket, OfferedModel, Reach, WeightsOffer

_NOW = TelemetryPoint(
    at=names.NOW - 10,
    span_s=10,
    utilization=0.0,
    memory_used_gib=0.6,
    temperature_c=51.0,
    power_w=14.0,
    clock_mhz=300.0,
    memory_clock_mhz=405.0,
)
_BUSY = TelemetryPoint(
    at=names.STARTED_AT + 60,
    span_s=10,
    utilization=0.98,
    memory_used_gib=5.3,
    temperature_c=72.0,
    power_w=152.0,
    clock_mhz=1755.0,
    memory_clock_mhz=7000.0,
)
TELEMETRY = [_BUSY, _NOW]

CARD = CardView(
    id=names.CARD_ID,
    node_id=names.NODE_ID,
    node_name=names.NODE,
    kind=CardKind.CUDA,
    name=names.CARD,
    vram_gib=6.0,
    usable_gib=5.4,
    band=Tier.POST,
    compute_capability="7.5",
    models=["animatic", names.MODEL],
    state="idle",
    silent_s=1.2,
    last_seen=names.NOW - 1,
    driver="550.120",
    pcie=PcieLink(generation=3, lanes=16, lanes_most=16),
    bus_gb_s=12.1,
    ram_gib=15.6,
    precision="fp16",
    others_gib=0.0,
    facts=CardFacts(bus_id="00000000:01:00.0", cuda=(12, 4), power_limit_w=160.0),
    vitals=Vitals(
        at=names.NOW - 1,
        utilization=0.0,
        memory_used_gib=0.6,
        temperature_c=51.0,
        power_w=14.0,
        clock_mhz=300,
        memory_clock_mhz=405,
        pcie_generation=1,
        pcie_lanes=16,
    ),
)
NODE = NodeView(
    id=names.NODE_ID,
    name=names.NODE,
    address=names.ADDRESS,
    last_seen=names.NOW - 1,
    versions={"farm": names.FARM_VERSION, "ray": names.RAY_VERSION, "python": names.PYTHON_VERSION},
    cards=[CARD],
    ram_gib=15.6,
    ram_free_gib=11.9,
    owner_rules="hours 22:00-08:00",
)
DRAINED = NODE.model_copy(
    update={"drained_at": names.NOW, "cards": [CARD.model_copy(update={"state": "drained"})]}
)
SILENT = NODE.model_copy(
    update={
        "last_seen": names.NOW - 86_400,
        "cards": [
            CARD.model_copy(
                update={
                    "state": "not answering",
                    "silent_s": 86_400.0,
                    "last_seen": names.NOW - 86_400,
                    "vitals": None,
                }
            )
        ],
    }
)

THROUGHPUT = Throughput(
    card_id=names.CARD_ID,
    card_name=names.CARD,
    node_name=names.NODE,
    window="24h",
    since=names.JOINED_AT,
    until=names.NOW,
    clips=1,
    clips_per_hour=0.47,
    frames_per_minute=0.12,
    seconds_per_step=8.2,
    wh_per_clip=18.4,
    success_rate=1.0,
    utilization=0.06,
    part_s=3600.0,
    parts=[ThroughputPart(at=names.SUBMITTED_AT, clips_per_hour=1.0)],
)
CALIBRATION = CalibrationView(
    aim=0.8,
    renders=1,
    within=1.0,
    quicker=0.0,
    slower=0.0,
    median_error=0.013,
    by_basis={
        "catalogue": CalibrationView(
            aim=0.8, renders=1, within=1.0, quicker=0.0, slower=0.0, median_error=0.013
        )
    },
)
BENCH = BenchView(
    card=names.CARD,
    model=names.MODEL,
    setting=BenchSettingView(name="low-spec", width=512, height=512, frames=8, steps=30, guidance=7.5),
    at="2026-11-20T08:20:00+00:00",
    card_id=names.CARD_ID,
    startup_s=27.5,
    first_frame_s=61.0,
    total_s=64.2,
    peak_gib=4.3,
    rating=3.0,
    predicted_s=70.1,
    predicted_gib=4.4,
)

TICKET = JoinTicket(
    farm_id=names.FARM_ID,
    node_id=names.NODE_ID,
    node_token="gV5xq0sNw8YtB2cRk7LzJm4DhPa1Fu6E",  # noqa: S106  # of no farm
    ray_address="192.168.1.10:6380",
    ray_token="b1946ac92492d2347c6235b4d2611184",  # noqa: S106  # of no farm
    epoch="01M7VZ4N50",
    ray_version=names.RAY_VERSION,
    python_version=names.PYTHON_VERSION,
    farm_version=names.FARM_VERSION,
)
_SCRIPT, _HEAD = b"", "http://192.168.1.10:8000"
FACTS = FarmFacts(
    farm_id=names.FARM_ID,
    farm_version=names.FARM_VERSION,
    ray_version=names.RAY_VERSION,
    python_version=names.PYTHON_VERSION,
    line=linux_line(_SCRIPT, _HEAD),
)
TOKEN = TokenView(
    token=names.CODE,
    kind="join",
    expires_at=names.NOW + 3600,
    linux=linux_line(_SCRIPT, _HEAD, names.CODE),
    windows=windows_line(_SCRIPT, _HEAD, names.CODE),
)
COMING_BACK = replace(TICKET, node_token="")
REACH = Reach(failed={10002: "no answer within 2 s"}, seen_as="192.168.1.10")
MANIFEST = Manifest(
    names.MODEL,
    "ali-vilab/i2vgen-xl",
    (WeightFile(names.WEIGHTS_FILE, names.WEIGHTS_BYTES, names.WEIGHTS_SHA256),),
)
OFFER = WeightsOffer((OfferedModel(names.MODEL, MANIFEST.digest, MANIFEST.bytes),), ("svd",))
