#!/bin/sh
# Loads recorded measurements into PostgreSQL.
#
#   load.sh [FILE]     a history as `make bench` keeps it
#                      (build/bench/history.jsonl)
#
# Which server, database and user, and their secret, are libpq's environment
# variables (PGHOST, PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE, or one
# PGSERVICE); nothing of them is read from, or left in, a file of this
# repository. Needs psql (Debian package postgresql-client).
set -eu

file=${1:-build/bench/history.jsonl}
folder=$(dirname "$0")
[ -r "$file" ] || { echo "load: cannot read $file; run \`make bench\` first" >&2; exit 1; }

# A line of JSON is one field: neither delimiter nor quote occurs in JSON text.
{
    cat "$folder/schema.sql"
    echo "CREATE TEMPORARY TABLE line (text jsonb NOT NULL);"
    echo "COPY line FROM STDIN WITH (FORMAT csv, DELIMITER E'\\x01', QUOTE E'\\x02');"
    cat "$file"
    echo '\.'
    echo "SELECT count(*) || ' runs in the file, '"
    echo "    || count(*) FILTER (WHERE bench.load(text)) || ' new' FROM line;"
} | psql --no-psqlrc --quiet --tuples-only --no-align --single-transaction \
    --set ON_ERROR_STOP=1
