"""A target that costs next to nothing: nginx with `return 200` and a sold claim's answer; over TLS,
too, with a certificate that nobody vouches for. Below /plain it answers without headers of the
system's, each time with another order id.
"""

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.ports import await_port, free_port
from flashsale.stack import binaries

_CONF = """worker_processes 1; daemon off; pid {folder}/pid; error_log stderr crit; {user}
worker_rlimit_nofile {descriptors};
events {{ worker_connections {descriptors}; }}
http {{
    access_log off; keepalive_requests 1000000; keepalive_timeout 300s;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port} backlog=4096{tls};
        default_type application/json;
        location /plain/ {{
            return 200 '{{"success":true,"data":7$connection$connection_requests}}';
        }}
        location / {{
            add_header x-outcome sold; add_header x-order-id 515385561440059393;
            return 200 '{{"success":true,"data":515385561440059393}}';
        }}
    }}
}}
"""

_DESCRIPTORS_MAX = 65_536


@dataclass(frozen=True)
class NullTarget:
    """Where it answers, and the process that does."""

    url: str
    pid: int


_TLS = " ssl; ssl_certificate {folder}/own.pem; ssl_certificate_key {folder}/own.key"
_CERTIFY = (
    *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
    *("-subj", "/CN=127.0.0.1", "-days", "1", "-keyout", "own.key", "-out", "own.pem"),
)


@contextmanager
def null_target(*, tls: bool = False) -> Iterator[NullTarget]:
    """Serve it for the time of the block. Raises FileNotFoundError for `tls` without openssl."""
    binary = binaries.find(binaries.NGINX)
    openssl = shutil.which("openssl")
    if tls and openssl is None:
        raise FileNotFoundError("openssl is not on PATH")
    with tempfile.TemporaryDirectory(prefix="flashsale-null-") as name:
        folder, port = Path(name), free_port()
        user = "user root;" if os.geteuid() == 0 else ""
        conf = folder / "nginx.conf"
        if tls:
            subprocess.run(
                [str(openssl), *_CERTIFY], cwd=folder, check=True, stderr=subprocess.DEVNULL
            )
        secure = _TLS.format(folder=folder) if tls else ""
        _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
        descriptors = min(descriptors, _DESCRIPTORS_MAX) if descriptors > 0 else _DESCRIPTORS_MAX
        conf.write_text(
            _CONF.format(folder=folder, port=port, user=user, tls=secure, descriptors=descriptors)
        )
        process = subprocess.Popen(
            [binary.path, "-e", "stderr", "-p", name, "-c", conf], env=binary.environment()
        )
        try:
            await_port(port)
            yield NullTarget(f"http{'s' if tls else ''}://127.0.0.1:{port}", process.pid)
        finally:
            process.terminate()
            process.wait()
