"""Who is one person, and who shares one account: merges and their undoing, household pools."""

from domain.accounts import PoolRole
from domain.commands import Enrolled, Posted
from tests.generator.events import Makers, World


class Households:
    """Members come, turn out to be the same, and move together; some of it is undone again."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.merges: list[str] = []
        """Keys of merges, undone ones too."""
        self.pools: list[int] = []

    def makers(self) -> Makers:
        """What may happen."""
        return [
            (1, self.newcomer),
            (1, self.merge),
            (2, self.unmerge),
            (1, self.found),
            (2, self.join),
            (1, self.leave),
        ]

    async def newcomer(self) -> None:
        """So that merges do not leave one member alone."""
        world = self.world
        card = f"card-{len(world.cards) + 1}"
        if isinstance(await world.post(world.till.enrolment(card, partner=world.partner())), Enrolled):
            world.cards.append(card)

    async def merge(self) -> None:
        """Two members are one person; a mistake is often seen at once, and can still be undone then."""
        world, key = self.world, self.world.key()
        keep, duplicate = world.random.sample(world.cards, 2)
        if isinstance(await world.post(world.till.merge(key, keep, duplicate)), Posted):
            self.merges.append(key)
            if world.random.random() < 0.4:
                await world.post(world.till.unmerge(world.key(), key))

    async def unmerge(self) -> None:
        """Some merge, perhaps one that was undone, or whose points are spent."""
        if self.merges:
            await self.world.post(self.world.till.unmerge(self.world.key(), self.world.random.choice(self.merges)))

    async def found(self) -> None:
        """A household."""
        world = self.world
        founded = await world.post(world.till.founding(world.key(), world.card()))
        if isinstance(founded, Posted):
            # The pool's account is the member's now.
            sql = "SELECT id FROM pool WHERE account_id = :account"
            self.pools.append(await world.till.one(sql, account=founded.balance.account_id))

    async def join(self) -> None:
        """Somebody comes into a household, or gets another place in it."""
        if self.pools:
            world = self.world
            pool_id, card = world.random.choice(self.pools), world.card()
            role = world.random.choice((PoolRole.HEAD, PoolRole.MEMBER, PoolRole.MEMBER))
            limit = None if role == PoolRole.HEAD else world.random.choice((None, 50, 500))
            await world.post(world.till.joining(world.key(), pool_id, card, role=role, burn_limit=limit))

    async def leave(self) -> None:
        """Somebody goes; the last one takes what is left."""
        await self.world.post(self.world.till.leaving(self.world.key(), self.world.card()))
