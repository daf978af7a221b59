"""The ledger against the auditor.

MODEL_PROFILE chooses how long to look: "quick" (the default: 4 examples of each machine, always the same), "ci" (100,
other ones each time) or "long" (2,000). A failure prints the steps that lead to it, as few as were found; "hunt" (100,
other ones) stops at the first and looks for no fewer.
"""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import URL

from tests.model.accounts import Accounts
from tests.model.driver import Driver
from tests.model.ends import Ends
from tests.model.life import Life
from tests.model.money import Money


@pytest.mark.parametrize("machine", [Life, Accounts, Money, Ends])
def test_ledger_and_auditor_agree(
    monkeypatch: pytest.MonkeyPatch,
    server: URL,
    coalition_templates: dict[str, str],
    profile: settings,
    machine: type[Driver],
) -> None:
    monkeypatch.setattr(Driver, "server", server, raising=False)
    monkeypatch.setattr(Driver, "templates", coalition_templates, raising=False)
    run_state_machine_as_test(machine, settings=profile)
