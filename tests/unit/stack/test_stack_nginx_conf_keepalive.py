"""nginx lets go of an idle connection to a replica before the replica does."""

import re

from flashsale.files import resource
from flashsale.settings import ReplicaSettings


def test_a_replica_keeps_idle_connections_longer_than_nginx() -> None:
    """Else a claim is sent into a connection that is being closed, and its outcome is unknown."""
    template = resource("deploy/nginx.conf.j2").read_text()
    upstream = template[template.index("upstream replicas") : template.index("map $request_method")]
    (idle_s,) = re.findall(r"keepalive_timeout (\d+)s;", upstream)
    assert ReplicaSettings().idle_timeout_ms > int(idle_s) * 1000
