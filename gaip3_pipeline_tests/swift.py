"""An S3 server with authentication for tests: OpenStack Swift with s3api and tempauth, in four
processes, as its administrators run it (https://docs.openstack.org/swift)."""

import getpass
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gaip3_pipeline_tests.web.processes import free_port

# Swift reads /etc/swift/swift.conf when it is imported, unless the path is set before.
LAUNCH = """
import sys, warnings
warnings.simplefilter("ignore")
import swift.common.utils
swift.common.utils.SWIFT_CONF_FILE = sys.argv[1]
from swift.common.wsgi import run_wsgi
sys.exit(run_wsgi(sys.argv[2], sys.argv[3]))
"""
RINGS = """
import sys, warnings
warnings.simplefilter("ignore")
from swift.common.ring import RingBuilder
for ring, port in zip(sys.argv[1::2], sys.argv[2::2]):
    builder = RingBuilder(6, 1, 0)
    builder.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port),
                     "device": "disk", "weight": 1.0})
    builder.rebalance(seed="0")
    builder.get_ring().save(ring)
"""
SERVER = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
devices = {folder}
mount_check = false
swift_dir = {folder}
user = {user}
log_level = WARNING
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
PROXY = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
swift_dir = {folder}
user = {user}
log_level = WARNING
[pipeline:main]
pipeline = catch_errors proxy-logging cache listing_formats s3api tempauth slo dlo proxy-logging proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:proxy-logging]
use = egg:swift#proxy_logging
[filter:cache]
use = egg:swift#memcache
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
[filter:tempauth]
use = egg:swift#tempauth
user_faces_owner = {secret} .admin
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""  # noqa: E501


@dataclass(frozen=True)
class Swift:
    """The endpoint, and the key and secret of its one user."""

    endpoint: str
    key: str
    secret: str


@contextmanager
def serving() -> Iterator[Swift]:
    """Swift on free ports of loopback, its objects in a temporary folder."""
    secret, stores = secrets.token_hex(12), ("account", "container", "object")
    ports = {kind: free_port() for kind in (*stores, "proxy")}
    processes: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory() as name, Path(name, "log").open("w") as log:
        folder = Path(name)
        (folder / "disk").mkdir()
        (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
        rings = [word for k in stores for word in (f"{folder}/{k}.ring.gz", f"{ports[k]}")]
        subprocess.run([sys.executable, "-c", RINGS, *rings], check=True)
        about = {"folder": folder, "user": getpass.getuser(), "secret": secret}
        try:
            for kind, port in ports.items():
                conf = folder / f"{kind}.conf"
                text = SERVER if kind in stores else PROXY
                conf.write_text(text.format(port=port, kind=kind, **about))
                words = [sys.executable, "-c", LAUNCH, folder / "swift.conf", conf]
                processes.append(
                    subprocess.Popen([*words, f"{kind}-server"], stdout=log, stderr=log)
                )
            for port in ports.values():
                _wait(port, processes, folder / "log")
            yield Swift(f"http://127.0.0.1:{ports['proxy']}", "faces:owner", secret)
        finally:
            for process in processes:
                process.kill()  # to a SIGTERM it answers when its connections have ended
            for process in processes:
                process.wait()


def _wait(port: int, processes: list[subprocess.Popen[bytes]], log: Path) -> None:
    for _ in range(600):
        if any(process.poll() is not None for process in processes):
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(log.read_text())
