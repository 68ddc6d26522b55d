#!/usr/bin/env bash
# Several workers share one queue: the same crashes are copied by one, by two and by four
# processes, and the times are shown side by side:
#
#     bash examples/many_workers.sh 2000
#
# On many machines it is the same with a queue and stores that all of them reach.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python "$here/sample_crashes.py" "$work/collector" --crashes "${1:-2000}" >"$work/ids"

for workers in 1 2 4; do
    place=$work/$workers
    mkdir "$place"
    crashmover queue-publish -q "sqlite:$place/queue.db" --create --ids-from "$work/ids" 2>/dev/null
    begun=${EPOCHREALTIME//[.,]/}
    running=()
    for _ in $(seq "$workers"); do
        crashmover copy -q "sqlite:$place/queue.db" --wait 0 --workers 1 --no-progress \
            -s "$work/collector" -d "$place/archive" 2>>"$place/log" &
        running+=($!)
    done
    for process in "${running[@]}"; do
        wait "$process" || { cat "$place/log" >&2; exit 1; }
    done
    took=$((${EPOCHREALTIME//[.,]/} - begun))
    alone=${alone:-$took}
    awk -v n="$workers" -v t="$took" -v a="$alone" \
        'BEGIN { printf "%d working: %.1f s, %.1f times as fast as one\n", n, t / 1e6, a / t }'
    # Nothing is left to be done: every crash has arrived.
    crashmover copy -s "$work/collector" -d "$place/archive" --json >"$place/summary" 2>>"$place/log"
    grep -q '"copied": 0, .*"failed": 0' "$place/summary"
done
