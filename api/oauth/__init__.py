"""The OAuth 2 authorization server: Authlib's, on Starlette and our own tables (DESIGN.md section 7).

``routes`` is what the application mounts, ``clients`` what the command line calls. A request goes through
``routes``, ``requests`` (what may come in), ``server`` (clients and tokens in the database) and one file of
``grants`` or ``endpoints``.
"""
