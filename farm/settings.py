"""The only reader of the environment, and the only place that knows where things lie in a data directory."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from farm.errors import ConfigurationError

QUIET_ENVIRONMENT = {
    # No usage reports to anyone, and no progress bars or advice from libraries in our logs.
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    # Ray compares Python to the patch version by default, which would refuse 3.11.2 beside 3.11.7.
    "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
    # Ray wraps a worker's own writes to stdout in log tailing that nobody reads here.
    "RAY_DEDUP_LOGS": "0",
}
"""What every process of the farm has in its environment."""


class FarmSettings(BaseSettings):
    """Settings from `FARM_*` variables; command-line options win over them."""

    model_config = SettingsConfigDict(env_prefix="FARM_", extra="ignore")

    def __init__(self, **values: Any) -> None:
        """Reads the environment; `values` win over it.

        Raises:
            ConfigurationError: a variable has a value that cannot be used.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = (
                f"FARM_{one['loc'][0]} ".upper() + one["msg"][:1].lower() + one["msg"][1:]
                for one in error.errors()
            )
            raise ConfigurationError(
                f"A setting of the environment cannot be used: {'; '.join(wrong)}.",
                "Correct it, or unset it.",
            ) from error

    data: Path = Field(default_factory=lambda: user_data_path("old-gpu-farm"))
    """Where the head keeps its database, artifacts and secrets."""
    host: str = "127.0.0.1"
    port: int = 8000
    tls: bool = False
    """Whether the head encrypts Ray and the dashboard with certificates of its own authority; see docs/decisions/0021."""
    ca: Path | None = None
    """The certificate of a farm's authority, for clients of a head with TLS on another PC; this PC's own farm needs none."""
    ray_port: int = 6380
    """Ray's GCS port. Not Ray's own default, so that a farm does not collide with another Ray on the PC."""
    as_user: str = ""
    """Whom `farm join` becomes when root starts it; see `farm.unprivileged`."""
    node_home: Path | None = None
    """Where a node keeps its identity and spool; set by `farm up` and `farm join` for the processes they start."""
    models_file: Path | None = None
    """Further model rows, in the shape of farm/catalogue/models.toml."""
    model_store: Path | None = None
    """Where the farm's models lie on this PC, where that is not with the node's or the head's other files; see `shelf`."""
    hf_token: str = Field(default="", repr=False)
    """Hugging Face's token for `farm models pull` of a model whose licence must be accepted; `farm.secret_files` keeps it on the head."""
    fetch_mib_s: float = Field(default=0.0, ge=0.0)
    """The most that a node takes of its line for weights, MiB/s; 0 for all that it gives."""
    head: str = "http://127.0.0.1:8000"
    token: str = ""
    max_upload_mib: float = 32.0
    """Largest body of a request with pictures, MiB; larger ones are refused while they are read."""
    lease_s: float = 30.0
    """How long a silent attempt keeps its job before it is `lost`."""
    tiers: Literal["soft", "strict", "off"] = "soft"
    keep_days: Annotated[float, Field(gt=0)] | None = None
    """Clips and pictures of jobs that ended longer ago are deleted; None keeps them for ever. The jobs stay in the history."""
    keep_gb: Annotated[float, Field(gt=0)] | None = None
    """The most that clips and pictures of ended jobs may take, in 10^9 bytes; the oldest go first. None: as much as the disk has."""
    object_store_mib: int = 400
    log_level: str = "INFO"

    @property
    def shelf(self) -> Path:
        """The directory of the weights that the farm brought to this PC: the node's own, else the head's."""
        return (
            self.model_store or DataDirectory(self.data if self.node_home is None else self.node_home).models
        )


@dataclass(frozen=True)
class DataDirectory:
    """The head's data directory. Nothing here is created by asking for its path."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "farm.sqlite3"

    @cached_property
    def database_url(self) -> str:
        """The SQLAlchemy URL of the database."""
        return f"sqlite:///{self.database}"

    @property
    def artifacts(self) -> Path:
        """Inputs, videos and thumbnails, named by their hash."""
        return self.root / "artifacts"

    @property
    def animations(self) -> Path:
        """GIFs and WebPs made from videos; every one can be made again, so no backup needs them."""
        return self.root / "cache" / "animations"

    @property
    def stills(self) -> Path:
        """Small JPEGs made from inputs; as with `animations`."""
        return self.root / "cache" / "stills"

    @property
    def secrets(self) -> Path:
        """Tokens, mode 0700."""
        return self.root / "secrets"

    @property
    def ray_token(self) -> Path:
        """Ray's authentication token, mode 0600."""
        return self.secrets / "ray-token"

    @property
    def admin_token(self) -> Path:
        """This PC's own client token, mode 0600: what `farm submit` uses when no token is given."""
        return self.secrets / "admin-token"

    @property
    def tls(self) -> Path:
        """The farm's authority, and the head's certificate and key: see `farm.tls.TlsFiles`."""
        return self.secrets / "tls"

    @property
    def run(self) -> Path:
        """Sockets, pid files and facts of the running processes."""
        return self.root / "run"

    @property
    def feed_socket(self) -> Path:
        """The scheduler's live feed."""
        return self.run / "feed.sock"

    @property
    def head_url(self) -> Path:
        """The address under which this PC reaches its own dashboard, written by it on every start."""
        return self.run / "head-url"

    @property
    def ray_facts(self) -> Path:
        """JSON: address and epoch of the running Ray head."""
        return self.run / "ray.json"

    @property
    def previews(self) -> Path:
        """The newest small picture of each running job: `<job id>.jpg`."""
        return self.run / "previews"

    @property
    def checkpoints(self) -> Path:
        """What a render that was cut off goes on from: `<job id>.checkpoint` of each job that has not ended."""
        return self.root / "cache" / "checkpoints"

    @property
    def node_home(self) -> Path:
        """The home of the head's own node."""
        return self.root / "node"

    @property
    def bench_results(self) -> Path:
        """What `farm bench` measured: a JSON object to a line, the newest last."""
        return self.root / "bench.jsonl"

    @property
    def models(self) -> Path:
        """The models' weights, one directory each; in a node's home too."""
        return self.root / "models"

    @property
    def hf_token(self) -> Path:
        """Hugging Face's token, mode 0600."""
        return self.secrets / "hf-token"

    @property
    def logs(self) -> Path:
        """Log files of the head's processes."""
        return self.root / "logs"
