#!/usr/bin/env bash
# gzip: what follows the last member has three different answers.
#
# With: isal 1.9.1, zlib-ng 1.1.0, Python 3.11 or later; November 2026.
# Guess: libraries that stand in for Python's gzip raise what it raises.
# Seen: junk behind a member is BadGzipFile in Python, and EOFError ("ended before the end-of-stream
#   marker") in isal and zlib-ng, although the member is whole; gzip -t warns and exits with 2.
#   Zeros are passed over by all; a member behind zeros is read by the libraries, not by gzip.
# For a user: do not take EOFError from isal for a file that was cut short.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
junk: gzip: BadGzipFile
junk: igzip: EOFError
junk: gzip_ng: EOFError
junk: gzip: exit code 2, b'one'
zeros: gzip: b'one'
zeros: igzip: b'one'
zeros: gzip_ng: b'one'
zeros: gzip: exit code 0, b'one'
zeros and a member: gzip: b'onetwo'
zeros and a member: igzip: b'onetwo'
zeros and a member: gzip_ng: b'onetwo'
zeros and a member: gzip: exit code 2, b'one'
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q isal==1.9.1 zlib-ng==1.1.0
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import gzip, io, subprocess
from isal import igzip
from zlib_ng import gzip_ng

one, two = gzip.compress(b"one", mtime=0), gzip.compress(b"two", mtime=0)
for name, data in {"junk": one + b"junk", "zeros": one + bytes(7), "zeros and a member": one + bytes(7) + two}.items():
    for module in (gzip, igzip, gzip_ng):
        try:
            answer = module.open(io.BytesIO(data)).read()
        except Exception as error:
            answer = type(error).__name__
        print(f"{name}: {module.__name__.split('.')[-1]}: {answer}")
    done = subprocess.run(["gzip", "-dc"], input=data, capture_output=True)
    print(f"{name}: gzip: exit code {done.returncode}, {done.stdout}")
PYTHON
diff expected seen && echo "as it was seen before"
