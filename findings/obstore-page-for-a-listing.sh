#!/usr/bin/env bash
# obstore: a page to log in is a listing of nothing.
#
# With: obstore 0.12.1; November 2026.
# Guess: an answer to ListObjectsV2 that has no ListBucketResult in it is an error.
# Seen: list and list_with_delimiter return nothing, without an error, if status 200 comes with any whole
#   XML document: a page that is closed properly, or even <Error>.  What is not XML is a GenericError.
# For a user: an empty listing does not prove that there is nothing.  Proxies, portals and firewalls answer
#   with such pages, some of them to requests with certain queries only.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
a listing: list: ['a']
a listing: list_with_delimiter: ['a']
a page: list: []
a page: list_with_delimiter: []
a page that is no XML: list: GenericError
a page that is no XML: list_with_delimiter: GenericError
another document: list: []
another document: list_with_delimiter: []
an error: list: []
an error: list_with_delimiter: []
a text: list: GenericError
a text: list_with_delimiter: GenericError
nothing: list: GenericError
nothing: list_with_delimiter: GenericError
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q obstore==0.12.1
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import obstore
from obstore.store import S3Store

ANSWERS = {
    "a listing": b"<ListBucketResult><Contents><Key>a</Key><Size>1</Size><ETag>1</ETag>"
                 b"<LastModified>2026-11-29T00:00:00Z</LastModified></Contents></ListBucketResult>",
    "a page": b"<html><head><title>Log in</title></head><body><p>Log in first</p></body></html>",
    "a page that is no XML": b"<!doctype html><html><head><meta charset=utf-8></head><body>Log in<br></body></html>",
    "another document": b"<Rejected><Support>17</Support></Rejected>",
    "an error": b"<Error><Code>AccessDenied</Code></Error>",
    "a text": b"log in first",
    "nothing": b"",
}

class Server(BaseHTTPRequestHandler):
    def do_GET(self):
        body = ANSWERS[self.server.says]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
store = S3Store("crashes", endpoint=f"http://127.0.0.1:{server.server_port}", region="us-east-1", access_key_id="k",
                secret_access_key="s", client_options={"allow_http": True},
                retry_config={"max_retries": 0})
calls = {
    "list": lambda: [meta["path"] for page in obstore.list(store) for meta in page],
    "list_with_delimiter": lambda: [meta["path"] for meta in obstore.list_with_delimiter(store)["objects"]],
}
for server.says in ANSWERS:
    for name, call in calls.items():
        try:
            print(f"{server.says}: {name}:", call())
        except Exception as error:
            print(f"{server.says}: {name}:", type(error).__name__)
PYTHON
diff expected seen && echo "as it was seen before"
