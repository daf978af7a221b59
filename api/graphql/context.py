"""What resolvers work with: the services of the process, and the context of one request."""

from dataclasses import dataclass, field

import strawberry
from graphql import GraphQLError

from api.graphql.ids import IdCodec
from api.graphql.limits import PAGE_DEFAULT, PAGE_MAX
from api.graphql.loaders import Loaders, MemberReader
from api.graphql.scopes import Requirement, satisfies
from api.security import Authenticator, Principal
from domain.database import Database
from domain.errors import ConfigurationError
from domain.periods import Clock
from domain.queue import PostingQueue
from domain.terms import ConfigurationCache, Programme
from domain.values import OPERATOR_ID


@dataclass(frozen=True)
class Services:
    """What lives as long as the process. ``ids`` is made of ``ids.load_installation_secret``."""

    database: Database
    queue: PostingQueue
    configuration: ConfigurationCache
    authenticator: Authenticator
    clock: Clock
    ids: IdCodec
    members: MemberReader = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", MemberReader(self.database, self.clock))


class Context:
    """One request: who asks, with which scopes, and the loaders that batch what it reads."""

    __slots__ = ("loaders", "principal", "request_id", "scopes", "services", "viewer_id")

    def __init__(self, services: Services, principal: Principal, scopes: frozenset[str], request_id: str) -> None:
        self.services = services
        self.principal = principal
        self.scopes = scopes
        self.request_id = request_id
        self.viewer_id = principal.partner_id
        self.loaders = Loaders(services.database, services.members, services.clock, principal.partner_id)

    @property
    def is_operator(self) -> bool:
        """Whether the viewer is the operator, who sees every partner."""
        return self.viewer_id == OPERATOR_ID

    @property
    def programme(self) -> Programme:
        """The programme as last loaded. Raises ConfigurationError before the first ``coalition apply``."""
        held = self.services.configuration.held
        if held is None:
            raise ConfigurationError("there is no programme yet: run `coalition apply FILE.toml`")
        return held.programme

    def allows(self, requirement: Requirement) -> bool:
        """Whether the token's scopes meet the requirement."""
        return satisfies(requirement, self.scopes)

    def may_see(self, partner_id: int) -> bool:
        """Whether what belongs to that partner is the viewer's to see."""
        return self.viewer_id in (OPERATOR_ID, partner_id)

    def forget(self) -> None:
        """Drops what was read so far: a mutation of this request is about to change it."""
        self.loaders = Loaders(self.services.database, self.services.members, self.services.clock, self.viewer_id)


Info = strawberry.Info[Context, None]


def bad_input(message: str, field_name: str) -> GraphQLError:
    """An error for input that no resolver can work with; says which argument and what to do."""
    return GraphQLError(message, extensions={"code": "BAD_USER_INPUT", "field": field_name})


def page_size(first: int | None) -> int:
    """The page size asked for. Raises BAD_USER_INPUT outside 1 to 100."""
    if first is None:
        return PAGE_DEFAULT
    if not 1 <= first <= PAGE_MAX:
        raise bad_input(f"first must be between 1 and {PAGE_MAX}; read on with after: pageInfo.endCursor", "first")
    return first
