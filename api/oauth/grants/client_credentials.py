"""client_credentials (RFC 6749 4.4): a till or web shop asks in its own name."""

from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant

from api.oauth.methods import AUTH_METHODS


class ClientCredentials(ClientCredentialsGrant):
    """Authlib's grant with both ways to send a secret."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS
