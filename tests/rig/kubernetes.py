"""deploy/kubernetes as `kubectl apply -k` would send it: rendered by kustomize, and looked into."""

import copy
import os
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from rig.compose import DEPLOY

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("small", "production", "production-keda")
JOBS = ("schema", "seed", "storm", "verify")
OUR_IMAGE = "flashsale"
SECRETS = "/run/secrets/flashsale"
_NAME = "app.kubernetes.io/name"

Document = dict[str, Any]
Documents = list[Document]


@cache
def _rendered(folder: str) -> Documents:
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    done = subprocess.run(
        [kubectl, "kustomize", KUBERNETES / folder],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def rendered(*folders: str) -> Documents:
    """What kustomize makes of these folders together; a copy for whoever asks."""
    return [copy.deepcopy(found) for folder in folders for found in _rendered(folder)]


def everything(overlay: str) -> Documents:
    """An overlay and all Jobs."""
    return rendered(f"overlays/{overlay}", *(f"jobs/{job}" for job in JOBS))


def of_kind(documents: Documents, *kinds: str) -> Documents:
    """Those of these kinds."""
    return [found for found in documents if found["kind"] in kinds]


def named(documents: Documents, kind: str, name: str) -> Document:
    """The one of this kind and name."""
    (found,) = [d for d in of_kind(documents, kind) if d["metadata"]["name"] == name]
    return found


@dataclass(frozen=True)
class Pod:
    """The Pod of a Deployment, StatefulSet or Job."""

    kind: str
    name: str
    labels: Mapping[str, str]
    spec: Document

    @property
    def containers(self) -> Documents:
        """All, those that come first included."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def lasts(self) -> bool:
        """Whether it is to run for ever."""
        return self.kind != "Job"


def pods(documents: Documents) -> Iterator[Pod]:
    """Everything that runs."""
    for found in of_kind(documents, "Deployment", "StatefulSet", "Job"):
        template = found["spec"]["template"]
        labels = template["metadata"]["labels"]
        yield Pod(found["kind"], found["metadata"]["name"], labels, template["spec"])


def ours(documents: Documents) -> Iterator[tuple[Pod, Document]]:
    """Every container of our image, with its Pod."""
    for pod in pods(documents):
        for container in pod.containers:
            if container["image"].partition(":")[0] == OUR_IMAGE:
                yield pod, container


def variables(documents: Documents, container: Document, pod_name: str = "pod-0") -> dict[str, str]:
    """A container's environment, as Kubernetes would make it."""
    told = {}
    for one in container.get("env", ()):
        source = one.get("valueFrom", {})
        if "configMapKeyRef" in source:
            wanted = source["configMapKeyRef"]
            told[one["name"]] = named(documents, "ConfigMap", wanted["name"])["data"][wanted["key"]]
        elif source.get("fieldRef") == {"fieldPath": "metadata.name"}:
            told[one["name"]] = pod_name
        else:
            told[one["name"]] = one["value"]
    return told


def words(container: Document, told: Mapping[str, str]) -> list[str]:
    """Its arguments, with `$(NAME)` filled in."""
    given = [str(word) for word in container.get("args", ())]
    for name, value in told.items():
        given = [word.replace(f"$({name})", value) for word in given]
    return given


# Who reaches whom ------------------------------------------------------------------------------


def _selects(selector: Document, labels: Mapping[str, str]) -> bool:
    if any(labels.get(k) != v for k, v in selector.get("matchLabels", {}).items()):
        return False
    for term in selector.get("matchExpressions", ()):
        assert term["operator"] == "In", term
        if labels.get(term["key"]) not in term["values"]:
            return False
    return True


@dataclass(frozen=True)
class Party:
    """A Pod by its name, in a namespace; in ours where none is said."""

    name: str
    namespace: str = "flashsale"

    @property
    def labels(self) -> dict[str, str]:
        known = "k8s-app" if self.namespace == "kube-system" else _NAME
        return {known: self.name}


def _peers(rules: Any, side: str, other: Party, port: int) -> bool:
    for rule in rules or ():
        if "ports" in rule and port not in [p["port"] for p in rule["ports"]]:
            continue
        if side not in rule:
            return True
        for peer in rule[side]:
            space = peer.get("namespaceSelector")
            here = {"kubernetes.io/metadata.name": other.namespace}
            in_space = _selects(space, here) if space else other.namespace == "flashsale"
            if in_space and _selects(peer.get("podSelector", {}), other.labels):
                return True
    return False


def _allowed(documents: Documents, whom: Party, way: str, other: Party, port: int) -> bool:
    """By all policies together: what none forbids, or one allows."""
    if whom.namespace != "flashsale":
        return True
    policies = [
        found["spec"]
        for found in of_kind(documents, "NetworkPolicy")
        if way in found["spec"]["policyTypes"]
        and _selects(found["spec"]["podSelector"], whom.labels)
    ]
    rules, side = way.lower(), {"Ingress": "from", "Egress": "to"}[way]
    return not policies or any(_peers(p.get(rules), side, other, port) for p in policies)


def reaches(documents: Documents, who: Party, whom: Party, port: int) -> bool:
    """Whether the policies let `who` open a connection to `whom`."""
    return _allowed(documents, who, "Egress", whom, port) and _allowed(
        documents, whom, "Ingress", who, port
    )
