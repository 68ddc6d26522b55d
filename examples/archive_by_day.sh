#!/usr/bin/env bash
# The crashes of some days go from a store into an archive, day by day, and each day is checked:
#
#     bash examples/archive_by_day.sh gs://crashes-prod /archive/crashes 2026-11-01 2026-11-30
#
# Run it again at any time: what the archive has is passed over, and what a day has got meanwhile,
# such as a processed crash, is added.  If a crash fails, its day has a line that says so, the
# other days follow, and the exit code is 1.  If a store does not answer, the run ends there.
set -euo pipefail
: "${4:?usage: archive_by_day.sh SOURCE ARCHIVE FIRST_DAY LAST_DAY}"
stores=(-s "$1" -d "$2") day=$3 last=$4
bad=$(mktemp)
trap 'rm -f "$bad"' EXIT

archive_day() {
    local days=(--since "$1" --until "$1") code=0
    crashmover copy "${stores[@]}" "${days[@]}" --verify || code=$?
    ((code <= 1)) || return "$code"
    code=0
    crashmover check "${stores[@]}" "${days[@]}" >"$bad" || code=$?
    ((code == 1)) || return "$code"
    crashmover copy "${stores[@]}" --ids-from "$bad" --existing compare --verify
}

failed=0
while [[ ! $day > $last ]]; do
    code=0
    archive_day "$day" || code=$?
    ((code <= 1)) || exit "$code"
    ((code == 0)) || { echo "$day is not whole" >&2 && failed=1; }
    day=$(date -u -d "$day + 1 day" +%F)
done
exit "$failed"
