"""How long the auditor looks: profiles of Hypothesis, and the databases that examples are cloned from."""

import asyncio
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from sqlalchemy import URL

from domain.database import Database, DatabaseUrls
from tests.conftest import run_as_superuser
from tests.factories import apply_toml
from tests.model.coalitions import COALITIONS

pytest.register_assert_rewrite("tests.model.driver")  # so that a failure shows both sides' books

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

settings.register_profile(
    "model-quick",
    max_examples=4,
    stateful_step_count=20,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=SLOW,
)
settings.register_profile(
    "model-ci", max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=SLOW
)
settings.register_profile(
    "model-long", max_examples=2000, stateful_step_count=50, deadline=None, suppress_health_check=SLOW
)
settings.register_profile(
    "model-hunt",
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    suppress_health_check=SLOW,
)


@pytest.fixture
def profile() -> settings:
    """The profile that MODEL_PROFILE names."""
    return settings.get_profile(f"model-{os.environ.get('MODEL_PROFILE', 'quick')}")


@pytest.fixture(scope="session")
def coalition_templates(server: URL, template: str) -> Iterator[dict[str, str]]:
    """Per coalition a database in which it was applied and nothing else happened; "" is one without any."""
    made = {name: f"coalition_model_{name}_{os.getpid()}" for name in COALITIONS}

    async def apply(name: str, database_name: str) -> None:
        await run_as_superuser(server, f"CREATE DATABASE {database_name} TEMPLATE {template} STRATEGY file_copy")
        url = server.set(database=database_name)
        database = Database(DatabaseUrls(url, url, url))
        await apply_toml(database, COALITIONS[name])
        await database.dispose()

    for name, database_name in made.items():
        asyncio.run(apply(name, database_name))
    yield made | {"": template}
    for database_name in made.values():
        asyncio.run(run_as_superuser(server, f"DROP DATABASE {database_name} WITH (FORCE)"))
