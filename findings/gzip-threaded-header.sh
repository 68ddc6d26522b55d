#!/usr/bin/env bash
# isal and zlib-ng: the threaded writers swap two bytes of the gzip header.
#
# With: isal 1.9.1, zlib-ng 1.1.0; November 2026.
# Guess: the ninth byte (XFL) is 0, 2 or 4 and the tenth (OS) is 255 "unknown", as RFC 1952 has them and
#   as the writers without threads do.
# Seen: igzip_threaded and gzip_ng_threaded write XFL 255 and OS 0 (FAT), which nothing defines; every
#   reader takes it.  With threads=0 the bytes are right.
# For a user: the same data has other first ten bytes, so compare what is unpacked, not the files.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
igzip: XFL 0, OS 255
igzip_threaded, no thread: XFL 0, OS 255
igzip_threaded, one thread: XFL 255, OS 0
gzip_ng: XFL 2, OS 255
gzip_ng_threaded, one thread: XFL 255, OS 0
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q isal==1.9.1 zlib-ng==1.1.0
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import gzip, io
from isal import igzip, igzip_threaded
from zlib_ng import gzip_ng, gzip_ng_threaded

def written(module, threads):
    file = io.BytesIO()
    with module.open(file, "wb", threads=threads) as writer:
        writer.write(b"{}" * 100)
    assert gzip.decompress(file.getvalue()) == b"{}" * 100
    return file.getvalue()

for name, data in {
    "igzip": igzip.compress(b"{}"),
    "igzip_threaded, no thread": written(igzip_threaded, 0),
    "igzip_threaded, one thread": written(igzip_threaded, 1),
    "gzip_ng": gzip_ng.compress(b"{}"),
    "gzip_ng_threaded, one thread": written(gzip_ng_threaded, 1),
}.items():
    print(f"{name}: XFL {data[8]}, OS {data[9]}")
PYTHON
diff expected seen && echo "as it was seen before"
