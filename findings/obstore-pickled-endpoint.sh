#!/usr/bin/env bash
# obstore: a store that was made with the key endpoint_url_s3 cannot be copied by pickle.
#
# With: obstore 0.12.1; November 2026.
# Guess: whatever S3Store takes in its config it also takes from its own pickle, as with "endpoint".
# Seen: aws_endpoint_url_s3 is accepted; `config` gives it back without the prefix; and loading the
#   pickle says that the key is unknown.
# For a user: with multiprocessing, name the endpoint as "endpoint".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
endpoint: config has ['endpoint'], its pickle: loaded
aws_endpoint: config has ['endpoint'], its pickle: loaded
endpoint_url: config has ['endpoint'], its pickle: loaded
aws_endpoint_url_s3: config has ['endpoint_url_s3'], its pickle: UnknownConfigurationKeyError
SEEN
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q obstore==0.12.1
cd "$work"
env -u AWS_ENDPOINT_URL -u AWS_PROFILE AWS_EC2_METADATA_DISABLED=true PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import pickle
from obstore.store import S3Store

for key in ("endpoint", "aws_endpoint", "endpoint_url", "aws_endpoint_url_s3"):
    store = S3Store(config={"bucket": "crashes", "region": "us-east-1", key: "http://127.0.0.1:9000"},
                    client_options={"allow_http": True})
    kept = sorted(name for name in store.config if "endpoint" in name)
    try:
        pickle.loads(pickle.dumps(store))
        answer = "loaded"
    except Exception as error:
        answer = type(error).__name__
    print(f"{key}: config has {kept}, its pickle: {answer}")
PYTHON
diff expected seen && echo "as it was seen before"
