#!/bin/sh
# Secrets reach a container as files, the platform reads DATABASE_URL: DATABASE_URL_FILE names the file,
# so that the password shows neither in the compose file nor in `docker inspect`.
set -eu

if [ -n "${DATABASE_URL_FILE:-}" ]; then
  DATABASE_URL=$(cat "$DATABASE_URL_FILE")
  export DATABASE_URL
fi

exec "$@"
