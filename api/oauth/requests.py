"""What may reach the OAuth endpoints: one bounded form, every parameter once, credentials in one place.

Everything is checked here, before Authlib sees it: its own reading of a malformed Basic header raises, and a
parameter sent twice would be the first one to Authlib and perhaps the last one to a proxy in front of us.
"""

import re
from base64 import b64decode
from urllib.parse import parse_qsl, unquote_plus

from authlib.oauth2 import OAuth2Request
from authlib.oauth2.rfc6749 import InvalidClientError, InvalidRequestError
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from starlette.requests import Request

BODY_BYTES_MAX = 16 * 1024
PARAMETERS_MAX = 32
FORM_TYPE = "application/x-www-form-urlencoded"

PRINTABLE = re.compile(r"[\x20-\x7e]+")
"""VSCHAR of RFC 6749 appendix A, which every parameter of these endpoints is made of."""


class FormRequest(OAuth2Request):
    """A request as Authlib reads it. ``basic`` are the id and secret of its Basic header, if it has one."""

    def __init__(self, uri: str, parameters: dict[str, str], basic: tuple[str, str] | None) -> None:
        super().__init__("POST", uri)
        self.payload: BasicOAuth2Payload = BasicOAuth2Payload(parameters)
        self.basic = basic

    @property
    def form(self) -> dict[str, str]:
        """The parameters of the body; the URL has none."""
        return self.payload.data


async def read_request(request: Request, public_url: str) -> FormRequest:
    """The checked request. ``public_url`` is its address as the client knows it: https, or on loopback.

    Raises OAuth2Error: invalid_request (400, or 413 for a body over the limit), invalid_client (401),
    insecure_transport (400).
    """
    if request.url.query:
        raise InvalidRequestError("Send the parameters in the body; this address takes no query string")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != FORM_TYPE:
        raise InvalidRequestError(f"Send the parameters as a form: Content-Type {FORM_TYPE}")
    parameters = form_parameters(await _read_body(request))
    basic = _basic_of(request)
    if basic is not None:
        if "client_secret" in parameters:
            raise InvalidRequestError("Send the client's secret once: in the Authorization header or in the body")
        if parameters.get("client_id", basic[0]) != basic[0]:
            raise InvalidRequestError("The client_id in the body is not the one in the Authorization header")
    return FormRequest(public_url, parameters, basic)


async def _read_body(request: Request) -> bytes:
    # Not Starlette's max_body_size: that answers in plain text, whatever the application would have said.
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise InvalidRequestError(f"The body is larger than {BODY_BYTES_MAX} bytes", status_code=413)
    return bytes(body)


def form_parameters(body: bytes) -> dict[str, str]:
    """The parameters of a form, each at most once; those without a value count as not sent (RFC 6749 3.2).

    Raises InvalidRequestError for anything that is not a form of printable ASCII.
    """
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError:
        raise InvalidRequestError(
            f"The body must be an encoded form with at most {PARAMETERS_MAX} parameters"
        ) from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if not PRINTABLE.fullmatch(name) or (value and not PRINTABLE.fullmatch(value)):
            raise InvalidRequestError("Parameters must be printable ASCII")
        if name in parameters:
            raise InvalidRequestError("A parameter was sent more than once")
        parameters[name] = value
    return {name: value for name, value in parameters.items() if value}


def _basic_of(request: Request) -> tuple[str, str] | None:
    headers = request.headers.getlist("authorization")
    if not headers:
        return None
    credentials = basic_credentials(headers[0]) if len(headers) == 1 else None
    if credentials is None:
        raise InvalidClientError("The Authorization header must be Basic with the client's id and secret")
    return credentials


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Client id and secret of a Basic header, each percent-encoded before the base64 (RFC 6749 2.3.1).

    None when it is another scheme or malformed, or names no client; the database cannot even hold some ids.
    """
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = b64decode(encoded.strip(" "), validate=True).decode("ascii").partition(":")
        client_id = unquote_plus(client_id, errors="strict")
        secret = unquote_plus(secret, errors="strict")
    except ValueError:
        return None
    return (client_id, secret) if PRINTABLE.fullmatch(client_id) else None
