"""How a client may prove who it is, in the words of RFC 8414."""

AUTH_METHODS = ("client_secret_basic", "client_secret_post")
"""Allowed at the token, revocation and introspection endpoints, and to every new client."""
