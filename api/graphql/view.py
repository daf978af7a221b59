"""GraphQL over HTTP, as lean as the specification allows: one ASGI endpoint around graphql-core's ``execute``.

It owns what the schema cannot: authentication, media types and statuses, limits on what is parsed and run, the scopes
of the whole operation before anything executes, and errors that tell a caller what to do and nothing about our insides.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any
from urllib.parse import parse_qs

import orjson
import structlog
from graphql import ExecutionResult, GraphQLError, GraphQLSchema, execute

from api.graphql.context import Context, Services
from api.graphql.documents import Document, DocumentRefused, Documents, Operation
from api.graphql.executing import LeanExecutor
from api.graphql.limits import BODY_BYTES_MAX, QUERIES_MAX, QUERY_STRING_BYTES_MAX
from api.graphql.negotiation import JSON, RESPONSE_JSON, is_json_body, response_type
from api.graphql.overload import TOO_MANY_QUERIES, turned_away
from api.graphql.schema import schema as strawberry_schema
from api.graphql.scopes import Requirement, in_words, satisfies
from api.logs import RequestRecord, request_record
from api.security import READ_SCOPES, REALM, Principal, challenge
from domain.observing import fault_facts

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

log = structlog.get_logger(__name__)


class HttpError(Exception):
    """A request that gets no GraphQL result: its status, its errors, and headers to add."""

    def __init__(
        self, status: int, errors: Sequence[Mapping[str, Any]], headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        super().__init__(status)
        self.status = status
        self.errors = errors
        self.headers = headers


def http_error(status: int, code: str, message: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> HttpError:
    """An HttpError with one error."""
    return HttpError(status, [{"message": message, "extensions": {"code": code}}], headers)


class ClientGone(Exception):
    """The client disconnected before its request was read."""


@dataclass(frozen=True, slots=True)
class Request:
    """The parameters of a GraphQL request."""

    query: str
    operation_name: str | None
    variables: Mapping[str, Any]


class GraphQLEndpoint:
    """ASGI endpoint for one route, all methods."""

    def __init__(
        self, services: Services, schema: GraphQLSchema | None = None, body_bytes_max: int = BODY_BYTES_MAX
    ) -> None:
        self._services = services
        self._schema = strawberry_schema._schema if schema is None else schema  # noqa: SLF001 (strawberry has no public name for it)
        self._documents = Documents(self._schema)
        self._body_bytes_max = body_bytes_max
        self._queries = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request."""
        assert scope["type"] == "http"
        headers: Headers = scope["headers"]
        given = dict(headers)
        request_id = request_record(scope).request_id
        media = response_type(_joined(headers, b"accept"))
        extra: Sequence[tuple[bytes, bytes]] = ()
        try:
            status, answer = await self._answer(scope, receive, given, media, request_id)
        except HttpError as error:
            status, extra = error.status, error.headers
            answer = {"errors": error.errors}
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 (an answer in our own form, whatever failed)
            status, answer = 500, {"errors": [_masked(error, None, request_id)]}
        body = orjson.dumps(answer)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*_answer_headers(media, len(body), request_id), *extra],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self,
        scope: MutableMapping[str, Any],
        receive: Receive,
        given: Mapping[bytes, bytes],
        media: str | None,
        request_id: str,
    ) -> tuple[int, Mapping[str, Any]]:
        services = self._services
        principal = await services.authenticator.authenticate(scope["headers"])
        if principal is None:
            raise _unauthenticated(scope["headers"])
        record = request_record(scope)
        record.client_id = principal.client_id
        method = scope["method"]
        if method not in ("POST", "GET"):
            message = "send a POST, or a GET for a query"
            raise http_error(405, "METHOD_NOT_ALLOWED", message, [(b"allow", b"GET, POST")])
        if media is None:
            raise http_error(406, "NOT_ACCEPTABLE", f"answers are {RESPONSE_JSON} or {JSON}: accept one of them")
        if method == "POST":
            request = _from_body(await self._body(given, receive))
        else:
            request = _from_query_string(scope["query_string"])
        bad_request = 400 if media == RESPONSE_JSON else 200
        try:
            document, operation = self._documents.prepared(request.query, request.operation_name, request.variables)
        except DocumentRefused as refused:
            return bad_request, {"errors": [error.formatted for error in refused.errors]}
        record.operation = operation.name
        if method == "GET" and operation.is_mutation:
            raise http_error(405, "METHOD_NOT_ALLOWED", "send mutations by POST", [(b"allow", b"POST")])
        scopes = _scopes(principal)
        _check_scopes(operation, scopes, media)
        answer = self._without_room(operation, request)
        if answer is not None:
            return 200, answer
        context = Context(services, principal, scopes, request_id)
        if operation.is_mutation:
            result = await self._executed(document, operation, request, context)
        else:
            self._queries += 1
            try:
                result = await self._executed(document, operation, request, context)
            finally:
                self._queries -= 1
        return _completed(result, bad_request, request_id)

    @property
    def is_full(self) -> bool:
        """Whether some requests find no room now."""
        return self._services.queue.is_full or self._queries >= QUERIES_MAX

    def refusal(self, headers: Headers, body: bytes, record: RequestRecord) -> tuple[Headers, bytes] | None:
        """Headers and body of the answer to a POST that finds no room; None where that takes more to tell."""
        media = response_type(_joined(headers, b"accept"))
        principal = self._services.authenticator.remembered(headers)
        if principal is None or media is None or not is_json_body(dict(headers).get(b"content-type")):
            return None
        try:
            request = _from_body(body)
            _, operation = self._documents.prepared(request.query, request.operation_name, request.variables)
            _check_scopes(operation, _scopes(principal), media)
        except (HttpError, DocumentRefused):
            return None
        answer = self._without_room(operation, request)
        if answer is None:
            return None
        record.client_id, record.operation = principal.client_id, operation.name
        content = orjson.dumps(answer)
        return _answer_headers(media, len(content), record.request_id), content

    def _without_room(self, operation: Operation, request: Request) -> Mapping[str, Any] | None:
        """What is answered at once where the operation finds too many before it."""
        queue = self._services.queue
        if not operation.is_mutation:
            return TOO_MANY_QUERIES if self._queries >= QUERIES_MAX else None
        if not operation.queued or not queue.is_full:
            return None
        refused = turned_away(operation.queued, request.variables, queue)
        return None if refused is None else {"data": refused}

    async def _executed(
        self, document: Document, operation: Operation, request: Request, context: Context
    ) -> ExecutionResult:
        if self._services.configuration.held is None:
            await self._services.configuration.current()
        result = execute(
            self._schema,
            document.node,
            None,
            context,
            request.variables,  # type: ignore[arg-type]  # read only
            request.operation_name,
            executor_class=LeanExecutor,
            selections=operation.selections,
        )
        return await result if isawaitable(result) else result

    async def _body(self, given: Mapping[bytes, bytes], receive: Receive) -> bytes:
        if not is_json_body(given.get(b"content-type")):
            raise http_error(415, "UNSUPPORTED_MEDIA_TYPE", "send the request as Content-Type: application/json")
        length = given.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._body_bytes_max:
            raise self._too_large()
        message = await receive()
        body: bytes = message.get("body", b"")
        chunks, size = [body], len(body)
        while message["type"] == "http.request" and message.get("more_body", False) and size <= self._body_bytes_max:
            message = await receive()
            body = message.get("body", b"")
            chunks.append(body)
            size += len(body)
        if message["type"] == "http.disconnect":
            raise ClientGone
        if size > self._body_bytes_max:
            raise self._too_large()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _too_large(self) -> HttpError:
        message = f"the body has more than {self._body_bytes_max} bytes: send fewer purchases at once"
        return http_error(413, "PAYLOAD_TOO_LARGE", message)


def _answer_headers(media: str | None, length: int, request_id: str) -> Headers:
    return [
        (b"content-type", f"{media or JSON}; charset=utf-8".encode()),
        (b"content-length", str(length).encode()),
        (b"x-request-id", request_id.encode()),
        (b"cache-control", b"no-store"),
    ]


def _joined(headers: Headers, name: bytes) -> bytes | None:
    values = [value for key, value in headers if key == name]
    return b", ".join(values) if values else None


def _unauthenticated(headers: Headers) -> HttpError:
    message = "send a valid access token: Authorization: Bearer <token>; POST /oauth/token gives one"
    return http_error(401, "UNAUTHENTICATED", message, [(b"www-authenticate", challenge(headers).encode())])


def _bad_request(message: str) -> HttpError:
    return http_error(400, "BAD_REQUEST", message)


def _parsed(text: bytes | str, what: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise _bad_request(f"{what} is not JSON in UTF-8") from None


def _from_body(body: bytes) -> Request:
    parameters = _parsed(body, "the body")
    if not isinstance(parameters, dict):
        raise _bad_request('the body must be one JSON object such as {"query": "…", "variables": {…}}')
    return _request(parameters, may_hold_nul=b"\\u0000" in body)


def _from_query_string(query_string: bytes) -> Request:
    if len(query_string) > QUERY_STRING_BYTES_MAX:
        raise http_error(414, "URI_TOO_LONG", "the query string is too long: send a POST")
    try:
        pairs = parse_qs(query_string.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError:
        raise _bad_request("the query string is not UTF-8 in percent-encoding") from None
    parameters: dict[str, Any] = {name: values[-1] for name, values in pairs.items()}
    for name in ("variables", "extensions"):
        if name in parameters:
            parameters[name] = _parsed(parameters[name], name) if parameters[name] else None
    if parameters.get("operationName") == "":
        parameters["operationName"] = None
    return _request(parameters, may_hold_nul=True)


def _request(parameters: Mapping[str, Any], *, may_hold_nul: bool) -> Request:
    query = parameters.get("query")
    if not isinstance(query, str) or not query:
        raise _bad_request("query is missing: send the GraphQL document as a string")
    operation_name = parameters.get("operationName")
    if operation_name is not None and not isinstance(operation_name, str):
        raise _bad_request("operationName must be a string")
    variables = parameters.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise _bad_request("variables must be a JSON object")
    if not isinstance(parameters.get("extensions") or {}, dict):
        raise _bad_request("extensions must be a JSON object")
    if may_hold_nul and _holds_nul(variables):
        raise _bad_request("text must not contain the character U+0000")
    return Request(query, operation_name, variables or {})


def _holds_nul(value: object) -> bool:
    """Whether any text in the variables holds the one character that PostgreSQL cannot store."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                return True
        elif isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
    return False


def _scopes(principal: Principal) -> frozenset[str]:
    return principal.scopes | READ_SCOPES if principal.is_operator else principal.scopes


def _check_scopes(operation: Operation, held: frozenset[str], media: str) -> None:
    assert operation.required is not None
    missing: list[tuple[str, Requirement]] = [
        (coordinate, requirement) for coordinate, requirement in operation.required if not satisfies(requirement, held)
    ]
    if not missing:
        return
    errors = [
        {
            "message": f"{coordinate} needs scope {in_words(requirement)}",
            "extensions": {"code": "FORBIDDEN", "requiredScopes": requirement},
        }
        for coordinate, requirement in missing
    ]
    scopes = " ".join(dict.fromkeys(scope for _, requirement in missing for scope in requirement[0]))
    bearer = f'Bearer realm="{REALM}", error="insufficient_scope", scope="{scopes}"'
    if media == RESPONSE_JSON:
        raise HttpError(403, errors, [(b"www-authenticate", bearer.encode())])
    raise HttpError(200, errors)


def _completed(result: ExecutionResult, bad_request: int, request_id: str) -> tuple[int, Mapping[str, Any]]:
    if not result.errors:
        return 200, {"data": result.data}
    if result.data is None and all(error.path is None for error in result.errors):
        # Nothing ran: the variables do not fit what the operation declares.
        errors = [{**error.formatted, "extensions": {"code": "BAD_USER_INPUT"}} for error in result.errors]
        return bad_request, {"errors": errors}
    return 200, {"errors": [_shown(error, request_id) for error in result.errors], "data": result.data}


def _shown(error: GraphQLError, request_id: str) -> Mapping[str, Any]:
    """What a caller sees of a field's error: our own say what to do, surprises say nothing."""
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    if cause is None:
        return error.formatted
    masked = _masked(cause, error.path, request_id)
    return {**masked, "locations": error.formatted.get("locations", []), "path": error.path}


def _masked(cause: Exception, path: Sequence[str | int] | None, request_id: str) -> dict[str, Any]:
    """Logs a surprise by where it happened; its text stays out, drivers put a row's values into theirs."""
    log.error(
        "graphql_resolver_failed",
        request_id=request_id,
        path=None if path is None else ".".join(map(str, path)),
        **fault_facts(cause),
    )
    return {
        "message": "internal error",
        "extensions": {"code": "INTERNAL_ERROR", "requestId": request_id},
    }
