"""Settings from environment variables: one table, checked at start, wrong ones refused with one clear line."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from domain.errors import ConfigurationError

PORT_MAX = 65535
QUEUE_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable: its name, what it is without it, and what it means."""

    name: str
    default: str
    meaning: str


TABLE = (
    Setting("DATABASE_URL", "", "PostgreSQL 18 to use, postgresql://user@host/name; empty: the embedded database"),
    Setting("COALITION_DATA_DIR", ".coalition", "folder of the embedded database"),
    Setting("COALITION_HOST", "127.0.0.1", "address to listen on"),
    Setting("COALITION_PORT", "8000", "port to listen on"),
    Setting("COALITION_ISSUER", "", "public URL of this server, for OAuth metadata; empty: as the request says"),
    Setting("COALITION_LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR"),
    Setting("COALITION_QUEUE_MAX", "1000", "commands that may wait to be posted; what comes then is OVERLOADED"),
    Setting("COALITION_METRICS_PORT", "0", "port that serves /metrics to Prometheus without a token; 0: none does"),
    Setting("COALITION_METRICS_HOST", "127.0.0.1", "address to serve /metrics on; must not be reachable by partners"),
)
"""Every variable that is read, in the order in which the documentation lists them."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The checked settings of one process."""

    database_url: str
    data_dir: Path
    host: str
    port: int
    issuer: str
    log_level: str
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 0
    """0: /metrics is not served."""
    queue_max: int = 1_000


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Reads and checks the environment. Raises ConfigurationError naming the variable."""
    values = {setting.name: environ.get(setting.name, "").strip() or setting.default for setting in TABLE}
    database_url = values["DATABASE_URL"]
    if database_url:
        _check_database_url(database_url)
    port = _port(values, "COALITION_PORT", 1)
    metrics_port = _port(values, "COALITION_METRICS_PORT", 0)
    if metrics_port == port:
        raise ConfigurationError("COALITION_METRICS_PORT is COALITION_PORT: give another, or 0 for no metrics")
    level = values["COALITION_LOG_LEVEL"].upper()
    if level not in {"DEBUG", "INFO", "WARNING", "ERROR"}:
        raise ConfigurationError(f"COALITION_LOG_LEVEL is {level!r}: give DEBUG, INFO, WARNING or ERROR")
    issuer = values["COALITION_ISSUER"].rstrip("/")
    if issuer and not issuer.startswith(("https://", "http://")):
        raise ConfigurationError(f"COALITION_ISSUER is {issuer!r}: give a URL that begins with https://")
    return Settings(
        database_url,
        Path(values["COALITION_DATA_DIR"]),
        values["COALITION_HOST"],
        port,
        issuer,
        level,
        values["COALITION_METRICS_HOST"],
        metrics_port,
        _whole(values, "COALITION_QUEUE_MAX", 1, QUEUE_MAX),
    )


def _port(values: Mapping[str, str], name: str, lowest: int) -> int:
    return _whole(values, name, lowest, PORT_MAX, "port")


def _whole(values: Mapping[str, str], name: str, lowest: int, highest: int, what: str = "number") -> int:
    given = values[name]
    if not (given.isascii() and given.isdigit() and lowest <= int(given[: len(str(highest)) + 1]) <= highest):
        raise ConfigurationError(f"{name} is {given!r}: give a {what} from {lowest} to {highest}")
    return int(given)


def _check_database_url(database_url: str) -> None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        backend = make_url(database_url).get_backend_name()
    except ArgumentError:
        backend = ""
    # The value is not repeated: it may carry a password.
    if backend not in {"postgresql", "postgres"}:
        raise ConfigurationError("DATABASE_URL is not of the form postgresql://user:password@host:port/name")
