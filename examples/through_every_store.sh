#!/usr/bin/env bash
# Sample crashes go from a directory to a bucket, to a database, and back to a directory; then
# every part that came back is compared with the one that set out:
#
#     export BUCKET='s3://crashes?endpoint_url=http://127.0.0.1:9000'
#     export DATABASE='postgresql://me@localhost/crashes?schema=crashes'
#     bash examples/through_every_store.sh 500
#
# The AWS credentials and PGPASSWORD come from the environment, as always.
set -euo pipefail
: "${BUCKET:?the URI of a bucket}" "${DATABASE:?the URI of a database}"
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python "$here/sample_crashes.py" "$work/collector" --crashes "${1:-50}" >"$work/ids"
crashmover copy -s "$work/collector" -d "$BUCKET" --ids-from "$work/ids" --verify
crashmover copy -s "$BUCKET" -d "$DATABASE" --ids-from "$work/ids" --verify
crashmover copy -s "$DATABASE" -d "$work/archive" --ids-from "$work/ids" --verify
crashmover copy -s "$work/collector" -d "$work/archive" --existing compare --json
