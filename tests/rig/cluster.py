"""The Pods of deploy/kubernetes as processes of this machine, each by its lines in the manifests.

What a cluster would give them is replaced: names of Services by loopback, ports by free ones,
volumes and secrets by folders of the test. The stores, which the manifests have not, are those of
deploy/compose.yaml.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flashsale.stack import binaries, probe
from flashsale.stack.port import Port
from rig.compose import ROOT
from rig.containers import Containers
from rig.kubernetes import (
    SECRETS,
    Document,
    Documents,
    Pod,
    everything,
    named,
    of_kind,
    pods,
    variables,
    words,
)
from rig.until import until

STORES = {"redis-ledger": 6379, "redis-cache": 6379, "mysql": 3306}
WORK = "/var/lib/flashsale"
READY_S = 60.0


@dataclass
class Cluster:
    """An overlay's Pods, in one folder, over stores that are up."""

    stores: Containers
    overlay: str = "small"
    ports: dict[str, int] = field(default_factory=dict)
    """Where each Pod's first port is, by the Pod's name; nginx' own counters as `nginx-status`."""

    def __post_init__(self) -> None:
        self.documents: Documents = everything(self.overlay)
        self.folder = self.stores.folder
        (self.stores.secrets / "rendezvous_secret").write_text("known-to-shards\n")

    def pod(self, name: str) -> Pod:
        """The Pod of the workload of this name."""
        (found,) = [pod for pod in pods(self.documents) if pod.name == name]
        return found

    def start(self, workload: str, pod_name: str) -> None:
        """A Pod that lasts, under the name that the cluster would give it."""
        pod = self.pod(workload)
        (container,) = pod.containers
        self.ports[pod_name] = _free()
        if workload == "nginx":
            self._start_nginx(container)
            return
        line, told = self._line(container, pod_name), self._environment(container, pod_name)
        self.stores.launch(pod_name, None, line, told)

    def run(self, job: str) -> str:
        """A Job with one Pod, whose containers come one after the other; what they printed."""
        said = ""
        for container in self.pod(job).containers:
            process = self.begin(container, job, self.folder / "toolkit")
            out, _ = process.communicate(timeout=100)
            assert process.returncode == 0, f"{job} ended with {process.returncode}:\n{out}"
            said += out
        return said

    def storm(self) -> tuple[str, list[str]]:
        """The rendezvous and its shards, as their two Jobs begin them: at the same time."""
        self.ports["rendezvous"] = _free()
        (rendezvous,), (storm,) = self.pod("rendezvous").containers, self.pod("storm").containers
        shards = [
            self.begin(storm, f"storm-{i}", self.folder / f"storm-{i}", JOB_COMPLETION_INDEX=str(i))
            for i in range(named(self.documents, "Job", "storm")["spec"]["completions"])
        ]
        whole = self.begin(rendezvous, "rendezvous", self.folder / "toolkit")
        ended = [(p.communicate(timeout=100)[0], p.returncode) for p in (whole, *shards)]
        assert [code for _, code in ended] == [0] * len(ended), ended
        return ended[0][0], [said for said, _ in ended[1:]]

    def begin(
        self, container: Document, pod_name: str, work: Path, **told: str
    ) -> "subprocess.Popen[str]":
        """A container that comes to an end by itself, in a working folder that is its volume."""
        work.mkdir(exist_ok=True)
        environment = {
            name: value.replace(WORK, str(work))
            for name, value in self._environment(container, pod_name).items()
        }
        return subprocess.Popen(
            self._line(container, pod_name),
            cwd=work,
            env={**environment, **told},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    # Their probes -------------------------------------------------------------------------------

    def is_fine(self, workload: str, pod_name: str, which: str) -> bool:
        """Whether a probe of the Pod's, such as `readinessProbe`, would be content."""
        (container,) = self.pod(workload).containers
        asked = container[which]["httpGet"]
        port = self.ports["nginx-status" if asked["port"] == "status" else pod_name]
        return probe.http_status("127.0.0.1", port, asked["path"], 5.0) == 200

    def await_started(self, workload: str, pod_name: str) -> None:
        """Wait as a cluster does before it asks anything else."""
        process = self.stores.running[pod_name]

        def started() -> bool:
            assert process.exit_code is None, f"{pod_name} ended:\n{process.log_tail()}"
            return self.is_fine(workload, pod_name, "startupProbe")

        until(started, READY_S)

    # What takes a cluster's place ----------------------------------------------------------------

    def _line(self, container: Document, pod_name: str) -> list[str]:
        given = words(container, variables(self.documents, container, pod_name))
        line = ["127.0.0.1" if word == "0.0.0.0" else self._here(word) for word in given]
        if "--port" in line:
            line[line.index("--port") + 1] = str(self.ports[pod_name])
        return [sys.executable, "-m", "flashsale", *line]

    def _environment(self, container: Document, pod_name: str) -> dict[str, str]:
        machine = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
        told = variables(self.documents, container, pod_name)
        return {**machine, "PYTHONPATH": str(ROOT), **{k: self._here(v) for k, v in told.items()}}

    def _here(self, text: str) -> str:
        for store, port in STORES.items():
            here = f"127.0.0.1:{self.stores.port_of[store, port]}"
            text = text.replace(f"{store}.flashsale-stores.svc:{port}", here)
        text = text.replace(SECRETS, str(self.stores.secrets))
        for name, shown in (("nginx", ""), ("rendezvous", ":9200")):
            if name in self.ports:
                text = text.replace(f"http://{name}{shown}", f"http://127.0.0.1:{self.ports[name]}")
        return text

    def _start_nginx(self, container: Document) -> None:
        """By its command and the file of its map; the Service `replica` is each replica in turn."""
        binary = binaries.find(binaries.NGINX)
        self.ports["nginx-status"] = _free()
        text = self._nginx_conf()
        replicas = [port for name, port in self.ports.items() if name.startswith("replica-")]
        for turn in range(text.count('"replica:8081"')):
            here = f'"127.0.0.1:{replicas[turn % len(replicas)]}"'
            text = text.replace('"replica:8081"', here, 1)
        for port, name in ((8080, "nginx"), (8090, "nginx-status")):
            text = text.replace(f"listen {port}", f"listen 127.0.0.1:{self.ports[name]}")
        text = text.replace("10.0.0.0/8 0;", "127.0.0.0/8 0;")  # the network of these Pods
        text = text.replace("/dev/stdout", str(self.folder / "access.log"))
        conf = self.folder / "nginx.conf"
        conf.write_text(text)
        (self.folder / "nginx").mkdir(exist_ok=True)
        assert container["command"] == ["nginx"]
        places = {"/run/nginx": self.folder / "nginx", "/etc/flashsale/nginx.conf": conf}
        line = [str(places.get(word, word)) for word in container["args"]]
        self.stores.launch("nginx", binary, [str(binary.path), *line])

    def _nginx_conf(self) -> str:
        maps = [found["data"] for found in of_kind(self.documents, "ConfigMap")]
        (text,) = [data["nginx.conf"] for data in maps if "nginx.conf" in data]
        assert re.search(r"keepalive_time 30s", text)
        return str(text)


def _free() -> int:
    port = Port.free()
    number = port.number
    port.close()
    return number


def grace_s(spec: Mapping[str, int]) -> int:
    """What a Pod has to end, less what it waits before it is told."""
    return spec["terminationGracePeriodSeconds"] - 5
