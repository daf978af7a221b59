"""Points whose expiry rolls: each accepted purchase or burn of their account moves it."""

from domain.batch import Batch
from domain.commands import CommandRow


def note_use(batch: Batch, row: CommandRow) -> None:
    """The account is used by this accepted purchase or burn: what rolls, and is not past, lives on from then."""
    programme = batch.configuration.programme
    if programme.rolling_lots:
        instant = batch.clock.expiry_instant(row.occurred_at)
        batch.accounts[row.account_id].note_use(row.occurred_at, instant, programme.zone)
