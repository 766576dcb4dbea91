"""The nginx of deploy/compose.yaml: `make compose` writes deploy/compose/nginx.conf from it.

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
    pictures="/srv/pictures",
    limits=AddressLimits(
        requests_per_s=50,
        requests_burst=200,  # people behind one address of a company or a carrier
        connections=200,
        exempt=("10.89.77.128/25",),  # a toolkit of the same compose.yaml
    ),
)

if __name__ == "__main__":
    sys.stdout.write(COMPOSE.render())
