"""Figures for Prometheus: what is counted, how often budgets are read, and where they are served."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Route

from api import metrics as metrics_module
from api.metrics import Metrics
from api.runtime import Runtime
from api.settings import load_settings
from domain.database import Database
from domain.errors import ConfigurationError
from domain.queue import PostingQueue
from tests.api.processes import a_coalition, free_port
from tests.domain.coalitions import coalition, partner
from tests.domain.tills import Till, till_on
from tests.factories import apply_toml

Figures = dict[tuple[str, ...], float]


@pytest.fixture
async def till(database: Database) -> AsyncIterator[Till]:
    async with till_on(database, coalition(partner("grocer"), partner("fuel"))) as opened:
        yield opened


def counting(till: Till, queue_max: int = 100) -> tuple[Metrics, Till]:
    """Metrics, and the same till with a queue that they watch; the queue is not started."""
    metrics = Metrics(Runtime(till.database, till.cache, till.clock))
    queue = PostingQueue(till.database, till.cache, till.clock, observer=metrics, queue_max=queue_max)
    metrics.watch(queue)
    return metrics, Till(till.database, till.configuration, till.clock, queue, till.cache)


async def figures(metrics: Metrics) -> Figures:
    """The page as a scraper reads it: values by name and labels, without the zeros."""
    app = Starlette(routes=[Route("/metrics", metrics.page)])
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.text)


def parsed(page: str) -> Figures:
    """Samples by name and the values of their labels, in the order of the labels' names."""
    samples = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for sample in samples
        if sample.value and not sample.name.endswith(("_created", "_bucket"))
    }


def of(found: Figures, *names: str) -> Figures:
    """The figures with these names."""
    return {key: value for key, value in found.items() if key[0] in names}


async def test_commands_and_batches_are_counted(till: Till) -> None:
    metrics, counted = counting(till)
    counted.queue.start()
    await counted.enrolled("card-1")
    await counted.accept_all([counted.purchase("k"), counted.purchase("k"), counted.purchase("l")])
    await counted.queue.post_many(
        [counted.burn("b", 10**6), counted.reversal("v", "nothing"), counted.purchase("k", "9")]
    )
    await counted.queue.quote(counted.purchase("q"))
    await counted.queue.stop()
    found = await figures(metrics)

    assert of(found, "coalition_commands_total", "coalition_refusals_total") == {
        ("coalition_commands_total", "enroll", "posted"): 1,
        ("coalition_commands_total", "earn", "posted"): 2,
        ("coalition_commands_total", "earn", "replayed"): 1,
        ("coalition_commands_total", "earn", "refused"): 1,
        ("coalition_commands_total", "burn", "refused"): 1,
        ("coalition_commands_total", "reverse", "refused"): 1,
        ("coalition_refusals_total", "IDEMPOTENCY_CONFLICT", "earn"): 1,
        ("coalition_refusals_total", "INSUFFICIENT_POINTS", "burn"): 1,
        ("coalition_refusals_total", "TRANSACTION_NOT_FOUND", "reverse"): 1,
    }
    assert of(
        found, "coalition_batch_commands_count", "coalition_batch_commands_sum", "coalition_batch_seconds_count"
    ) == {
        ("coalition_batch_commands_count",): 3,
        ("coalition_batch_commands_sum",): 7,
        ("coalition_batch_seconds_count",): 3,
    }
    assert 0 < found[("coalition_batch_seconds_sum",)] < 60
    assert found[("process_resident_memory_bytes",)] > 10**6


async def test_the_queue_is_measured_and_who_was_turned_away_counted(till: Till) -> None:
    metrics, counted = counting(till, queue_max=2)
    waiting = [counted.queue._enqueue(counted.purchase(f"k{number}")) for number in range(3)]
    found = await figures(metrics)
    assert found[("coalition_queue_length",)] == 2
    assert of(found, "coalition_refusals_total") == {("coalition_refusals_total", "OVERLOADED", "earn"): 1}

    counted.queue.start()
    await counted.queue.stop()
    assert ("coalition_queue_length",) not in await figures(metrics)
    assert all(answer.done() for answer in waiting)


async def test_budgets_of_today_are_read_every_few_seconds(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, _ = counting(till)
    await till.enrolled("card-1")
    await till.accept(till.purchase("k", "100.00"))
    budgets = "coalition_budget_limit", "coalition_budget_used"
    grocer = ("", "EUR", "grocer", "2017-03")
    assert of(await figures(metrics), *budgets) == {(budgets[0], *grocer): 1500.0, (budgets[1], *grocer): 1.1}

    # A scraper in a hurry gets what was read a moment ago.
    await till.accept(till.purchase("l", "100.00"))
    assert (await figures(metrics))[(budgets[1], *grocer)] == 1.1
    monkeypatch.setattr(metrics_module, "BUDGETS_EVERY_SECONDS", 0)
    assert (await figures(metrics))[(budgets[1], *grocer)] == 2.2
    # Without a database the last figures stay.
    monkeypatch.setattr(till.database, "reading", refused)
    assert (await figures(metrics))[(budgets[1], *grocer)] == 2.2
    monkeypatch.undo()
    monkeypatch.setattr(metrics_module, "BUDGETS_EVERY_SECONDS", 0)
    # In another month nothing is used yet, and the window of the last one is gone.
    till.clock.to(2017, 4, 2)
    assert of(await figures(metrics), *budgets) == {}


async def test_a_campaign_s_own_budget_is_shown_without_a_partner(till: Till) -> None:
    campaign = """
[[campaign]]
code = "gift"
name = "Gift"
from = 2017-03-01
to = 2017-06-30
bonus_points = 50
funding = [{ operator = true }]
[campaign.budget]
limit = "500.00"
on_limit = "DECLINE"
alert_at = "0.80"
"""
    await apply_toml(till.database, coalition(partner("grocer")) + campaign)
    metrics, _ = counting(till)
    await till.enrolled("card-1")
    await till.accept(till.purchase("k", "100.00"))
    budgets = "coalition_budget_limit", "coalition_budget_used"
    gift = ("gift", "EUR", "", "2017-03-01")
    found = of(await figures(metrics), *budgets)
    assert (found[(budgets[0], *gift)], found[(budgets[1], *gift)]) == (500.0, 0.5)


def refused(_viewer_id: int) -> None:
    """A database that is not there."""
    raise ConnectionRefusedError("nobody listens")


async def test_requests_are_counted_by_path_and_status(till: Till) -> None:
    metrics, _ = counting(till)
    for path, status in (("/graphql", 200), ("/graphql", 200), ("/graphql", 401), ("/healthz", 200)):
        metrics.request_answered(path, status, 2_000_000)
    found = await figures(metrics)
    assert of(found, "coalition_http_requests_total", "coalition_http_seconds_sum") == {
        ("coalition_http_requests_total", "/graphql", "200"): 2,
        ("coalition_http_requests_total", "/graphql", "401"): 1,
        ("coalition_http_requests_total", "/healthz", "200"): 1,
        ("coalition_http_seconds_sum", "/graphql"): 0.006,
        ("coalition_http_seconds_sum", "/healthz"): 0.002,
    }


def test_the_port_is_checked() -> None:
    assert load_settings({}).metrics_port == 0
    for value in ("x", "-1", "65536", "9" * 5000, "8000"):
        with pytest.raises(ConfigurationError, match=r"^COALITION_METRICS_PORT is "):
            load_settings({"COALITION_METRICS_PORT": value})


@pytest.mark.slow
def test_metrics_are_served_on_their_own_port_only() -> None:
    with a_coalition() as opened:
        port = free_port()
        opened.environment["COALITION_METRICS_PORT"] = str(port)
        server = opened.serve()
        assert httpx2.get(f"{server.url}/metrics").status_code == 404
        found = parsed(httpx2.get(f"http://127.0.0.1:{port}/metrics").text)
        assert found[("coalition_http_requests_total", "/readyz", "200")] >= 1
        assert found[("coalition_http_requests_total", "(unknown)", "404")] == 1
        assert httpx2.get(f"http://127.0.0.1:{port}/graphql").status_code == 404
        # A second server that finds the port taken says so, and leaves nothing running.
        opened.environment["COALITION_PORT"] = str(free_port())
        opened.run("serve", status=1)
        assert f"/metrics cannot be served on 127.0.0.1 port {port}: Address already in use" in opened.last_error
        server.wait_until_ready()
