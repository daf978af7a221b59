#!/bin/sh
# Run once by the postgres image, as its superuser, on an empty volume: makes the platform's login, which
# is no superuser and works by taking one of three roles (see domain/database.py).
set -eu

password=$(sed -E 's#^[^:]+://[^:]+:([^@]+)@.*$#\1#' /run/secrets/database_url)

psql --set ON_ERROR_STOP=1 --set password="$password" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
CREATE ROLE coalition_owner NOLOGIN;
CREATE ROLE coalition_posting NOLOGIN;
CREATE ROLE coalition_reading NOLOGIN;
CREATE ROLE coalition LOGIN PASSWORD :'password' IN ROLE coalition_owner, coalition_posting, coalition_reading;
REVOKE ALL ON DATABASE coalition FROM PUBLIC;
GRANT CONNECT ON DATABASE coalition TO coalition;
GRANT CREATE, CONNECT ON DATABASE coalition TO coalition_owner;
GRANT USAGE, CREATE ON SCHEMA public TO coalition_owner;
SQL
