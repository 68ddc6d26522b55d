#!/usr/bin/env bash
# google-auth: the address in the file of an account is asked, or not, by the kind of the account.
#
# With: google-auth 2.63.0, requests 2.34.2, cryptography 50.0.2; November 2026.
# Guess: the server that the file names for tokens is the one that is asked, for all kinds of accounts.
# Seen: so it is for service accounts and for identity federation, also where that acts as a service
#   account.  For a user's account the token_uri is replaced by Google's, also if Credentials.to_json()
#   wrote it.  For impersonated_service_account only the e-mail is taken out of the URL.
# For a user: behind a gateway for Google's APIs, or with a server of tokens for tests, use the first
#   kinds.  After reading a user's account, call with_token_uri().
#
# No request leaves the machine: a proxy of the script notes the name and refuses.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
service_account: the file's
external_account: the file's
external_account that acts as another: the file's, the file's
external_account_authorized_user: the file's
authorized_user: oauth2.googleapis.com:443
authorized_user with_token_uri(): the file's
impersonated_service_account: the file's, iamcredentials.googleapis.com:443
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q google-auth==2.63.0 requests==2.34.2 cryptography==50.0.2
cd "$work"
env PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import json, os, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

for name in list(os.environ):
    if "proxy" in name.lower() or name.startswith(("GOOGLE_", "GCLOUD_", "CLOUDSDK_")):
        del os.environ[name]
import google.auth
import google.oauth2.credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import TransportError
from google.auth.transport.requests import Request

class Tokens(BaseHTTPRequestHandler):
    """Gives tokens.  As a proxy it refuses."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        asked.append("the file's")
        body = json.dumps({
            "access_token": "token", "token_type": "Bearer", "expires_in": 3600,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "accessToken": "token", "expireTime": "2099-01-01T00:00:00Z",
        }).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self):
        asked.append(self.path)
        self.send_error(403)

    def log_message(self, *words):
        pass

asked = []
server = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
os.environ |= {"HTTPS_PROXY": address, "GOOGLE_APPLICATION_CREDENTIALS": "account.json"}
with open("subject", "w") as file:
    file.write("a token of another provider")
key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
service = {
    "type": "service_account", "project_id": "project", "private_key_id": "key", "private_key": key.decode(),
    "client_email": "me@project.iam.gserviceaccount.com", "token_uri": f"{address}/token",
}
acts = {"service_account_impersonation_url":
        f"{address}/v1/projects/-/serviceAccounts/you@project.iam.gserviceaccount.com:generateAccessToken"}
pool = {"audience": "//iam.googleapis.com/locations/global/workforcePools/p/providers/q", "token_url": f"{address}/sts"}
external = pool | {
    "type": "external_account", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "credential_source": {"file": "subject"},
}
client = {"client_id": "client", "client_secret": "secret", "refresh_token": "refresh"}
user = google.oauth2.credentials.Credentials(None, token_uri=f"{address}/token", **client)

def refresh(case, content, change=lambda account: account):
    with open("account.json", "w") as file:
        json.dump(content, file)
    asked.clear()
    account, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
    try:
        change(account).refresh(Request())
    except TransportError:  # of the proxy
        pass
    print(f"{case}: {', '.join(asked)}")

refresh("service_account", service)
refresh("external_account", external)
refresh("external_account that acts as another", external | acts)
refresh("external_account_authorized_user", pool | client | {"type": "external_account_authorized_user"})
saved = json.loads(user.to_json()) | {"type": "authorized_user"}
assert saved["token_uri"] == f"{address}/token"
refresh("authorized_user", saved)
refresh("authorized_user with_token_uri()", saved, lambda account: account.with_token_uri(saved["token_uri"]))
refresh("impersonated_service_account", acts | {"type": "impersonated_service_account", "source_credentials": service})
PYTHON
diff expected seen && echo "as it was seen before"
