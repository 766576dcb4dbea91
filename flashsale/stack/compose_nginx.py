"""The nginx of deploy/compose.yaml and of deploy/kubernetes: `make compose` writes both files.

Rendered beforehand and checked in, not by the image's own substitution of variables when it starts:
that knows no loops, so it would take a second template, and nobody could read or test what runs.
"""

import sys

from flashsale.stack.nginx import AddressLimits, NginxConf

COMPOSE = NginxConf(
    listen="8080",
    status_listen="8090",
    replicas=("replica1:8081", "replica2:8081", "replica3:8081"),
    workers=2,
    access_log="/dev/stdout",
    limits=AddressLimits(
        requests_per_s=50,
        requests_burst=200,  # people behind one address of a company or a carrier
        connections=200,
        exempt=("10.89.77.128/25",),  # a toolkit of the same compose.yaml
    ),
)

KUBERNETES = NginxConf(
    listen="8080",
    status_listen="8090",
    # One name, of a Service, behind which is another replica each time: what one try did not reach
    # is tried again under the same name.
    replicas=("replica:8081",) * 3,
    workers=2,
    upstream_keepalive_time="30s",  # so that a replica that was added gets its part
    access_log="/dev/stdout",
    limits=AddressLimits(
        requests_per_s=50,
        requests_burst=200,
        connections=200,
        exempt=("10.0.0.0/8",),  # the network of Pods: a storm, or a balancer in front
    ),
)

if __name__ == "__main__":
    chosen = KUBERNETES if sys.argv[1:] == ["kubernetes"] else COMPOSE
    sys.stdout.write(chosen.render())
