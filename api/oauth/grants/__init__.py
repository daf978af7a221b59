"""The grants that the token endpoint accepts: a file each, listed here and nowhere else."""

from authlib.oauth2.rfc6749 import BaseGrant

from api.oauth.grants.client_credentials import ClientCredentials

GRANTS: tuple[type[BaseGrant], ...] = (ClientCredentials,)
