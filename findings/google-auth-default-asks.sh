#!/usr/bin/env bash
# google-auth: default() asks two servers before it returns, if the account is a workload's.
#
# With: google-auth 2.63.0, requests 2.34.2; November 2026.
# Guess: google.auth.default() reads a file.  A server is asked when a token is needed: by refresh() or by
#   the first request.
# Seen: for workload identity it asks for a token, and with that cloudresourcemanager.googleapis.com for
#   the project, whether the caller uses the project or not.  If no way leads there, it raises
#   TransportError, though it has the token.  If the server refuses, the project is None.
#   The credentials are valid when they are returned, unless a quota project is named: then the token is
#   thrown away.  Where GOOGLE_CLOUD_PROJECT is set, no server is asked.
# For a user: set GOOGLE_CLOUD_PROJECT where only some of Google's servers can be reached.
#
# No request leaves the machine.  The argument request= leads those for the project to a server of the
# script; where it is not given, a proxy of the script notes the name and refuses.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
all answer: POST /sts, GET /v1/projects/1: project, valid: True
a quota project: POST /sts, GET /v1/projects/1: project, valid: False
the project is refused: POST /sts, GET /v1/projects/1: None, valid: True
no way to the project: POST /sts, CONNECT cloudresourcemanager.googleapis.com:443: TransportError
GOOGLE_CLOUD_PROJECT: no request: mine, valid: False
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q google-auth==2.63.0 requests==2.34.2
cd "$work"
env PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import json, logging, os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

for name in list(os.environ):
    if "proxy" in name.lower() or name.startswith(("GOOGLE_", "GCLOUD_", "CLOUDSDK_")):
        del os.environ[name]
import google.auth
from google.auth.transport.requests import Request

class Google(BaseHTTPRequestHandler):
    """Gives tokens, and knows projects.  As a proxy it refuses."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, {"access_token": "token", "token_type": "Bearer", "expires_in": 3600,
                          "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"})

    def do_GET(self):
        self.answer(self.server.status, {"projectId": "project"})

    def do_CONNECT(self):
        self.answer(403, {})

    def answer(self, status, content):
        asked.append(f"{self.command} {self.path}")
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

asked = []
server = ThreadingHTTPServer(("127.0.0.1", 0), Google)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
with open("subject", "w") as file:
    file.write("a token of another provider")
with open("account.json", "w") as file:
    json.dump({
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{address}/sts",
        "credential_source": {"file": "subject"},
    }, file)
os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = "account.json"
logging.disable()  # it warns that there is no project
send = Request()

def lead(url, **options):
    return send(url.replace("https://cloudresourcemanager.googleapis.com", address), **options)

def ask(case, status=200, **options):
    server.status = status
    asked.clear()
    try:
        account, project = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"], **options)
        seen = f"{project}, valid: {account.valid}"
    except Exception as error:
        seen = type(error).__name__
    print(f"{case}: {', '.join(asked) or 'no request'}: {seen}")

ask("all answer", request=lead)
ask("a quota project", request=lead, quota_project_id="other")
ask("the project is refused", 403, request=lead)
os.environ["HTTPS_PROXY"] = address
ask("no way to the project")
os.environ["GOOGLE_CLOUD_PROJECT"] = "mine"
ask("GOOGLE_CLOUD_PROJECT")
PYTHON
diff expected seen && echo "as it was seen before"
