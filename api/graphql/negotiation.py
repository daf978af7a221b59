"""Media types of GraphQL over HTTP: which one an answer has, and which one a body must have."""

from functools import lru_cache

JSON = "application/json"
RESPONSE_JSON = "application/graphql-response+json"

HEADERS_REMEMBERED = 256


@lru_cache(maxsize=HEADERS_REMEMBERED)
def response_type(accept: bytes | None) -> str | None:
    """The media type of the answer for an Accept header; None when the client accepts neither (406).

    The more acceptable one wins, application/json where nothing or only a wildcard was said.
    """
    if accept is None or not accept.strip():
        return JSON
    weights = {JSON: _weight(accept, JSON), RESPONSE_JSON: _weight(accept, RESPONSE_JSON)}
    json_weight, named = weights[JSON]
    response_weight, response_named = weights[RESPONSE_JSON]
    if response_weight == 0 and json_weight == 0:
        return None
    if response_weight != json_weight:
        return RESPONSE_JSON if response_weight > json_weight else JSON
    return RESPONSE_JSON if response_named and (not named or _first(accept) == RESPONSE_JSON) else JSON


def _ranges(accept: bytes) -> list[tuple[str, int]]:
    """The media ranges of a header with their weights in thousandths; what is malformed counts as not said."""
    ranges = []
    for part in accept.decode("latin-1").split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = 1000
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                weight = _thousandths(value.strip())
            elif name.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8"}:
                weight = 0
        ranges.append((media, weight))
    return ranges


def _thousandths(value: str) -> int:
    whole, _, fraction = value.partition(".")
    if whole not in {"0", "1"} or not (fraction.isdigit() or not fraction):
        return 0
    return min(int(whole) * 1000 + int(fraction.ljust(3, "0")[:3]), 1000)


def _weight(accept: bytes, media: str) -> tuple[int, bool]:
    """Weight of a media type by its most specific range, and whether it is named itself."""
    ranges = dict(_ranges(accept))
    for name in (media, "application/*", "*/*"):
        if name in ranges:
            return ranges[name], name == media
    return 0, False


def _first(accept: bytes) -> str:
    return next((media for media, weight in _ranges(accept) if weight and media in {JSON, RESPONSE_JSON}), JSON)


@lru_cache(maxsize=HEADERS_REMEMBERED)
def is_json_body(content_type: bytes | None) -> bool:
    """Whether a body of this type is what a POST must have: application/json in UTF-8."""
    if content_type is None:
        return False
    media, *parameters = (piece.strip().lower() for piece in content_type.decode("latin-1").split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8"}:
            return False
    return media == JSON
