#!/bin/sh
# Invents the passwords that compose.yaml reads, once: existing ones stay, the database keeps them.
set -eu
cd "$(dirname "$0")"

password() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# The folder is closed on this machine; the files are readable because the containers' users differ.
mkdir -p secrets
chmod 700 secrets
[ -e secrets/postgres_password ] || password >secrets/postgres_password
[ -e secrets/database_url ] \
  || printf 'postgresql://coalition:%s@database:5432/coalition' "$(password)" >secrets/database_url
chmod 644 secrets/postgres_password secrets/database_url
