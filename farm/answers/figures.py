"""What cards got done, and what they did on the bench."""

from farm.answers.base import Answer


class ThroughputPart(Answer):
    """Part of a span: when it begins, and the clips per hour in it. Parts without a clip are left out."""

    at: float
    clips_per_hour: float


class Throughput(Answer):
    """What a card got done from `since` to `until`, from stored attempts. None where nothing was done to tell it from.

    `frames_per_minute` counts frames of finished clips; `seconds_per_step` is the mean over denoising steps; `success_rate` and
    `utilization` are 0 to 1; `part_s` is the length of a part. A card that joined within the span is measured from then on.
    """

    card_id: str
    card_name: str
    node_name: str
    window: str
    since: float
    until: float
    clips: int = 0
    clips_per_hour: float | None = None
    frames_per_minute: float | None = None
    seconds_per_step: float | None = None
    wh_per_clip: float | None = None
    success_rate: float | None = None
    utilization: float | None = None
    part_s: float
    parts: list[ThroughputPart] = []


class BenchSettingView(Answer):
    """What a row of the evaluation renders; pixels."""

    name: str
    width: int
    height: int
    frames: int
    steps: int
    guidance: float


class BenchView(Answer):
    """One card under one setting, measured by `farm bench`, or published by the article (`published`).

    Seconds from a fresh process to the loaded model, from there to the first frame and to the finished clip; `peak_gib` as the
    allocator reserved it, of a published row in the article's GB. `rating`: a person's, 1 to 5. `at`: UTC, when it was measured.
    """

    card: str
    model: str
    setting: BenchSettingView
    published: bool = False
    at: str | None = None
    card_id: str | None = None
    startup_s: float | None = None
    first_frame_s: float | None = None
    total_s: float | None = None
    peak_gib: float | None = None
    rating: float | None = None
    predicted_s: float | None = None
    predicted_gib: float | None = None
    failure: str | None = None
