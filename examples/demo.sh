#!/usr/bin/env bash
# Sample crashes, a copy, the same copy again, and one crash shown: `make demo` runs this.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { # show a command as one would type it, and run it
    printf '\n$ %s\n' "$1"
    output=$(eval "$1")
    [ -z "$output" ] || echo "$output"
}

. .venv/bin/activate
rm -rf demo-crashes

run "python examples/sample_crashes.py ./demo-crashes/collector | tail -1"
crash_id=$output
run "crashmover copy -s ./demo-crashes/collector -d ./demo-crashes/archive"
run "crashmover copy -s ./demo-crashes/collector -d ./demo-crashes/archive"
run "crashmover get -s ./demo-crashes/archive $crash_id"
