"""deploy/kubernetes: rendered by kustomize, valid by the schemas of Kubernetes, and by the rules of
this house.

Each rule is a function from the rendered documents to complaints, and has a case that breaks it.
"""

import importlib
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import kubernetes_validate
import pytest
import yaml
from rig.command_line import parse
from rig.kubernetes import (
    JOBS,
    KUBERNETES,
    OVERLAYS,
    SECRETS,
    Document,
    Documents,
    Party,
    everything,
    named,
    of_kind,
    ours,
    pods,
    reaches,
    rendered,
    variables,
    words,
)

from flashsale.cli.tree import tree
from flashsale.files import STORE_PASSWORDS
from flashsale.settings import ReplicaSettings, Settings, WorkerSettings
from flashsale.stack.nginx import KUBERNETES as NGINX

Rule = Callable[[Documents], Iterator[str]]

OLDEST, NEWEST = "1.30", "1.37"
"""Kubernetes releases that the manifests are for: `preStop: sleep` came with the first."""

OPERATORS = {
    "ServiceMonitor": "cloudcoil.models.prometheus_operator.v1",
    "ScaledObject": "cloudcoil.models.keda.v1alpha1",
}
"""Kinds that are no part of Kubernetes, and where their models are."""


# By the schemas ---------------------------------------------------------------------------------


def _wrong(document: Document, version: str) -> str | None:
    """What a cluster that checks fields strictly would say."""
    if document["kind"] in OPERATORS:
        return _unknown_to_its_operator(document)
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return None


def _unknown_to_its_operator(document: Document) -> str | None:
    kind = document["kind"]
    model = getattr(importlib.import_module(OPERATORS[kind]), kind)
    try:
        read = model.model_validate(document)
    except ValueError as error:
        return str(error)
    known = json.loads(read.model_dump_json(by_alias=True, exclude_unset=True))
    return None if known == document else f"fields that a {kind} has not: {document} is {known}"


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_document_is_what_a_cluster_takes(version: str) -> None:
    every = [found for overlay in OVERLAYS for found in everything(overlay)]
    alike = {json.dumps(found, sort_keys=True): found for found in every}
    assert len(alike) > 30
    found = [(d["kind"], d["metadata"]["name"], _wrong(d, version)) for d in alike.values()]
    assert [wrong for wrong in found if wrong[-1] is not None] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_has_a_name_of_its_own_in_one_namespace(overlay: str) -> None:
    documents = everything(overlay)
    names = [(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents]
    assert len(set(names)) == len(names)
    assert {space for kind, space, _ in names if kind != "Namespace"} == {"flashsale"}


@pytest.mark.parametrize(
    ("kind", "name", "field", "value"),
    [
        ("Deployment", "replica", "replica", 3),
        ("Deployment", "replica", "replicas", "three"),
        ("Job", "storm", "completionmode", "Indexed"),
        ("ServiceMonitor", "replica", "selectors", {}),
        ("ScaledObject", "worker", "maxReplicaCount", "many"),
        ("ScaledObject", "worker", "maxReplicas", 3),
    ],
)
def test_the_schemas_would_have_said_so(kind: str, name: str, field: str, value: object) -> None:
    broken = named(everything("production-keda"), kind, name)
    broken["spec"][field] = value
    assert _wrong(broken, NEWEST)


def test_a_field_of_a_later_release_is_no_field_of_an_earlier_one() -> None:
    """So that the oldest release is really asked."""
    replica = named(everything("small"), "Deployment", "replica")
    assert _wrong(replica, OLDEST) is None
    assert _wrong(replica, "1.28") is not None, "preStop: sleep is not known there"


# By the rules of the house ----------------------------------------------------------------------


def images_are_pinned(documents: Documents) -> Iterator[str]:
    """A tag that names a version, and one version of ours."""
    own = set()
    for pod in pods(documents):
        for container in pod.containers:
            name, _, tag = container["image"].partition(":")
            if not re.search(r"\d+\.\d+", tag):
                yield f"{pod.name}: {container['image']}"
            if name == "flashsale":
                own.add(tag)
    if len(own) > 1:
        yield f"several versions of ours: {sorted(own)}"


_VOLUMES = {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected", "downwardAPI"}


def pods_are_restricted(documents: Documents) -> Iterator[str]:
    """The Pod Security Standard `restricted`, and a root file system that nobody writes."""
    space = named(documents, "Namespace", "flashsale")["metadata"].get("labels", {})
    if space.get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace admits more than the standard"
    for pod in pods(documents):
        own = pod.spec.get("securityContext", {})
        if any(pod.spec.get(what) for what in ("hostNetwork", "hostPID", "hostIPC")):
            yield f"{pod.name}: shares what is the host's"
        for volume in pod.spec.get("volumes", ()):
            if not (set(volume) - {"name"}) <= _VOLUMES:
                yield f"{pod.name}: has the volume {volume}"
        for container in pod.containers:
            found = {**own, **container.get("securityContext", {})}
            if found.get("runAsNonRoot") is not True or found.get("runAsUser") in (0, None):
                yield f"{pod.name}: may be root"
            if found.get("allowPrivilegeEscalation") is not False or found.get("privileged"):
                yield f"{pod.name}: may gain privileges"
            if found.get("capabilities") != {"drop": ["ALL"]}:
                yield f"{pod.name}: has capabilities"
            if found.get("seccompProfile") != {"type": "RuntimeDefault"}:
                yield f"{pod.name}: may call anything of the kernel"
            if found.get("readOnlyRootFilesystem") is not True:
                yield f"{pod.name}: writes to its root"


def nobody_asks_the_cluster(documents: Documents) -> Iterator[str]:
    for pod in pods(documents):
        account = pod.spec.get("serviceAccountName", "default")
        known = [d["metadata"]["name"] for d in of_kind(documents, "ServiceAccount")]
        if account not in known or pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{pod.name}: has a token of the cluster"
    if of_kind(documents, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        yield "somebody has rights in the cluster"


def everything_is_bounded(documents: Documents) -> Iterator[str]:
    for pod in pods(documents):
        for container in pod.containers:
            for side in ("requests", "limits"):
                given = container.get("resources", {}).get(side, {})
                for what in {"cpu", "memory", "ephemeral-storage"} - set(given):
                    yield f"{pod.name}: {side} any amount of {what}"
        for volume in pod.spec.get("volumes", ()):
            if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
                yield f"{pod.name}: {volume['name']} grows without end"
    for job in of_kind(documents, "Job"):
        for what in ("activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"):
            if not {what, f"{what}PerIndex"} & set(job["spec"]):
                yield f"{job['metadata']['name']}: no {what}"


PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def probes_differ(documents: Documents) -> Iterator[str]:
    """Each asks a question of its own, and life is despaired of last."""
    for pod in pods(documents):
        for container in pod.containers if pod.lasts else ():
            asked = [container.get(probe) for probe in PROBES]
            if None in asked:
                yield f"{pod.name}: lacks {[p for p in PROBES if p not in container]}"
                continue
            if len({json.dumps(probe, sort_keys=True) for probe in asked}) < len(PROBES):
                yield f"{pod.name}: two probes are the same"
            ports = {port["name"] for port in container["ports"]}
            if {probe["httpGet"]["port"] for probe in asked} - ports:
                yield f"{pod.name}: asks at a port that it has not"
            _, ready, alive = (p["periodSeconds"] * p["failureThreshold"] for p in asked)
            if alive <= ready:
                yield f"{pod.name}: is killed before it is spared"
            if any(probe["timeoutSeconds"] > probe["periodSeconds"] * 2 for probe in asked):
                yield f"{pod.name}: asks again long before it gave up"


def ends_in_its_own_time(documents: Documents) -> Iterator[str]:
    """Nodes are told first, then what is begun is answered, and there is a little left."""
    shutdown = re.search(r"worker_shutdown_timeout (\d+)s", NGINX.render())
    assert shutdown
    drain_s = {
        "replica": ReplicaSettings().drain_timeout_s,
        "nginx": float(shutdown[1]),
        "worker": 20.0,
    }
    for pod in pods(documents):
        if not pod.lasts:
            continue
        (container,) = pod.containers
        sleep_s = (
            container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        )
        if pod.name != "worker" and sleep_s < 3:
            yield f"{pod.name}: ends while others still send to it"
        if pod.spec.get("terminationGracePeriodSeconds", 30) < sleep_s + drain_s[pod.name] + 5:
            yield f"{pod.name}: is killed while it drains"


def a_node_can_be_emptied(documents: Documents) -> Iterator[str]:
    budgets = of_kind(documents, "PodDisruptionBudget")
    for pod in pods(documents):
        if not pod.lasts:
            continue
        its = [
            b["spec"]
            for b in budgets
            if b["spec"]["selector"]["matchLabels"].items() <= pod.labels.items()
        ]
        if len(its) != 1:
            yield f"{pod.name}: has {len(its)} budgets"
        elif its[0].get("maxUnavailable") != 1:
            yield f"{pod.name}: several may be taken at once, or none"


def spreads_over_zones_and_nodes(documents: Documents) -> Iterator[str]:
    keys = {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
    for pod in pods(documents):
        constraints = pod.spec.get("topologySpreadConstraints", ())
        if pod.lasts and {c["topologyKey"] for c in constraints} != keys:
            yield f"{pod.name}: may all be on one node, or in one zone"
        for constraint in constraints:
            if not constraint["labelSelector"]["matchLabels"].items() <= pod.labels.items():
                yield f"{pod.name}: spreads others"


def workers_keep_their_names(documents: Documents) -> Iterator[str]:
    """Started again under its name, a consumer finds what was given to it."""
    for pod, container in ours(documents):
        if container["args"][0] != "worker":
            continue
        named_by = [e for e in container["env"] if e["name"] == "POD_NAME"]
        by_field = [
            e["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}} for e in named_by
        ]
        if (
            pod.kind != "StatefulSet"
            or "$(POD_NAME)" not in container["args"]
            or by_field != [True]
        ):
            yield f"{pod.name}: is another each time"


def autoscalers_agree(documents: Documents) -> Iterator[str]:
    """What exists is scaled, by one, from which on nobody else says how many there are."""
    scaled = []
    for found in of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject"):
        target = found["spec"]["scaleTargetRef"]
        scaled.append((target["kind"], target["name"]))
        its = [
            d
            for d in of_kind(documents, target["kind"])
            if d["metadata"]["name"] == target["name"] and d["apiVersion"] == target["apiVersion"]
        ]
        if len(its) != 1:
            yield f"there is no {target}"
        elif "replicas" in its[0]["spec"]:
            yield f"{target['name']}: the next apply takes back what was scaled"
        low, high = (
            found["spec"].get(a, found["spec"].get(b))
            for a, b in (("minReplicas", "minReplicaCount"), ("maxReplicas", "maxReplicaCount"))
        )
        if low < 2 or high <= low:
            yield f"{target['name']}: from {low} to {high}"
        if "max(flashsale_stream_lag_entries" not in json.dumps(found["spec"]):
            types = [metric["type"] for metric in found["spec"].get("metrics", ())]
            wanted = {"replica": ["Resource"], "worker": ["External"]}
            if types != wanted.get(target["name"]):
                yield f"{target['name']}: scales by {types}"
    if len(set(scaled)) < len(scaled):
        yield "two scale the same"


NEEDED = [
    (Party("client", "elsewhere"), Party("nginx"), 8080),
    (Party("nginx"), Party("replica"), 8081),
    (Party("storm"), Party("nginx"), 8080),
    (Party("storm"), Party("rendezvous"), 9200),
    *(
        (Party(who), Party("store", "flashsale-stores"), port)
        for who in ("replica", "worker", "seed", "rendezvous", "verify")
        for port in (6379, 3306)
    ),
    (Party("schema"), Party("store", "flashsale-stores"), 3306),
    *(
        (Party(who), Party("kube-dns", "kube-system"), 53)
        for who in ("nginx", "replica", "worker", "storm", "schema", "verify")
    ),
]
FORBIDDEN = [
    (Party("client", "elsewhere"), Party("replica"), 8081),
    (Party("client", "elsewhere"), Party("nginx"), 8090),
    (Party("client", "elsewhere"), Party("rendezvous"), 9200),
    (Party("client", "elsewhere"), Party("worker"), 9100),
    (Party("client", "elsewhere"), Party("storm"), 80),
    (Party("storm"), Party("replica"), 8081),
    (Party("storm"), Party("store", "flashsale-stores"), 6379),
    (Party("nginx"), Party("store", "flashsale-stores"), 6379),
    (Party("nginx"), Party("client", "elsewhere"), 443),
    (Party("replica"), Party("client", "elsewhere"), 443),
    (Party("worker"), Party("replica"), 8081),
    (Party("verify"), Party("rendezvous"), 9200),
]


def each_reaches_whom_it_needs_and_nobody_else(documents: Documents) -> Iterator[str]:
    for who, whom, port in NEEDED:
        if not reaches(documents, who, whom, port):
            yield f"{who.name} does not reach {whom.name}:{port}"
    for who, whom, port in FORBIDDEN:
        if reaches(documents, who, whom, port):
            yield f"{who.name} reaches {whom.name}:{port}"
    known = {pod.labels["app.kubernetes.io/name"] for pod in pods(documents)}
    asked = {party.name for who, whom, _ in NEEDED for party in (who, whom)}
    yield from (f"nobody asks about {name}" for name in sorted(known - asked))


def secrets_are_by_reference(documents: Documents) -> Iterator[str]:
    """In files of a Secret that is not here; each that is named is mounted, and the other way."""
    yield from (f"a secret is here: {d['metadata']['name']}" for d in of_kind(documents, "Secret"))
    for found in of_kind(documents, "ConfigMap"):
        for key, value in found["data"].items():
            if re.search(r"://[^/@\s\"]*:[^/@\s\"]+@", value):
                yield f"{key} has a password in it"
    for pod, container in ours(documents):
        told = variables(documents, container)
        for name, value in told.items():
            if re.search(r"PASSWORD|TOKEN|SECRET", name) and not name.endswith("_FILE"):
                yield f"{pod.name}: {name} is in its environment"
            if re.search(r"://[^/@]*:[^/@]*@", value):
                yield f"{pod.name}: {name} has a password in it"
    for pod in pods(documents):
        granted = {
            item["path"]
            for volume in pod.spec.get("volumes", ())
            if "secret" in volume
            for item in volume["secret"].get("items", [{"path": "all of them"}])
        }
        told = json.dumps([container.get("env", ()) for container in pod.containers])
        wanted = set(re.findall(rf"{SECRETS}/(\w+)", told))
        yield from (f"{pod.name}: was not given {name}" for name in sorted(wanted - granted))
        yield from (f"{pod.name}: has no use for {name}" for name in sorted(granted - wanted))
        for container in pod.containers:
            mounted = [m for m in container.get("volumeMounts", ()) if m["mountPath"] == SECRETS]
            if SECRETS in json.dumps(container.get("env", ())) and len(mounted) != 1:
                yield f"{pod.name}: {container['name']} does not see its secrets"


def commands_exist(documents: Documents) -> Iterator[str]:
    """Taken apart by the command line itself, in the environment that they would have."""
    for pod, container in ours(documents):
        told = variables(documents, container)
        with patch.dict(os.environ, _readable(told)):
            try:
                command, _ = parse(words(container, told))
            except Exception as error:  # noqa: BLE001 - whatever the parser has to say
                yield f"{pod.name}: {container['args']}: {error}"
            else:
                if command != container["args"][0]:
                    yield f"{pod.name}: there is no `flashsale {container['args'][0]}`"


def _readable(told: dict[str, str]) -> dict[str, str]:
    """Without files of secrets, which are elsewhere."""
    return {name: value for name, value in told.items() if not name.endswith("_FILE")}


def settings_exist(documents: Documents) -> Iterator[str]:
    known = {"POD_NAME", "FLASHSALE_SHARDS"} | {f"{name}_FILE" for name in STORE_PASSWORDS}
    importlib.import_module("flashsale.stack.settings")
    for kind in Settings.__subclasses__():
        prefix = kind.model_config.get("env_prefix", "")
        for field, told in kind.model_fields.items():
            name = f"{prefix}{field}".upper()
            known |= {name, f"{name}_FILE"} if "Secret" in str(told.annotation) else {name}
    known |= _option_variables()
    for pod, container in ours(documents):
        unknown = set(variables(documents, container)) - known
        yield from (f"{pod.name}: nobody reads {name}" for name in sorted(unknown))


def _option_variables() -> set[str]:
    import typer

    commands: Any = typer.main.get_command(tree())
    return {
        str(parameter.envvar)
        for command in commands.commands.values()
        for parameter in command.params
        if parameter.envvar
    }


def what_is_named_is_there(documents: Documents) -> Iterator[str]:
    claims = {d["metadata"]["name"] for d in of_kind(documents, "PersistentVolumeClaim")}
    maps = {d["metadata"]["name"]: d["data"] for d in of_kind(documents, "ConfigMap")}
    services = {
        f"{d['metadata']['name']}:{port['port']}"
        for d in of_kind(documents, "Service")
        for port in d["spec"]["ports"]
    }
    for pod in pods(documents):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        for volume in volumes.values():
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim is not None and claim not in claims:
                yield f"{pod.name}: there is no claim {claim}"
            if "configMap" in volume and volume["configMap"]["name"] not in maps:
                yield f"{pod.name}: there is no map {volume['configMap']['name']}"
        mounted = {m["name"] for c in pod.containers for m in c.get("volumeMounts", ())}
        if mounted != set(volumes):
            yield f"{pod.name}: mounts {sorted(mounted)}, has {sorted(volumes)}"
        for container in pod.containers:
            for one in container.get("env", ()):
                key = one.get("valueFrom", {}).get("configMapKeyRef")
                if key and key["key"] not in maps.get(key["name"], {}):
                    yield f"{pod.name}: there is no {key}"
            texts = [
                *container.get("args", ()),
                *(e.get("value", "") for e in container.get("env", ())),
            ]
            for name, port in re.findall(r"http://([a-z-]+)(?::(\d+))?", " ".join(map(str, texts))):
                if f"{name}:{port or 80}" not in services:
                    yield f"{pod.name}: nobody is {name}:{port or 80}"
    for service in of_kind(documents, "Service"):
        its = [
            p for p in pods(documents) if service["spec"]["selector"].items() <= p.labels.items()
        ]
        ports = {port["name"] for p in its for c in p.spec["containers"] for port in c["ports"]}
        if len(its) != 1 or not {p["targetPort"] for p in service["spec"]["ports"]} <= ports:
            yield f"{service['metadata']['name']}: leads nowhere"
    for server in set(NGINX.replicas):
        if server not in services:
            yield f"nginx passes on to {server}"


def a_storm_has_all_its_shards(documents: Documents) -> Iterator[str]:
    spec = named(documents, "Job", "storm")["spec"]
    counts = {str(spec.get("completions")), str(spec.get("parallelism"))}
    for name in ("storm", "rendezvous"):
        (container,) = named(documents, "Job", name)["spec"]["template"]["spec"]["containers"]
        counts.add(variables(documents, container).get("FLASHSALE_SHARDS", "none"))
    if len(counts) != 1:
        yield f"found {sorted(counts)} shards"
    if spec.get("completionMode") != "Indexed":
        yield "shards have no index"
    if spec.get("backoffLimitPerIndex") != 0 or "backoffLimit" in spec:
        yield "a shard may come twice, or ends the others"
    if spec["template"]["spec"]["restartPolicy"] != "Never":
        yield "a shard may come twice"


def prometheus_finds_who_sells(documents: Documents) -> Iterator[str]:
    monitors = of_kind(documents, "ServiceMonitor")
    if not monitors:  # an overlay without an operator
        return
    watched = set()
    for monitor in monitors:
        wanted = monitor["spec"]["selector"]["matchLabels"]
        for service in of_kind(documents, "Service"):
            if wanted.items() <= service["metadata"]["labels"].items():
                ports = {port["name"]: port for port in service["spec"]["ports"]}
                for endpoint in monitor["spec"]["endpoints"]:
                    if endpoint["port"] in ports:
                        watched.add((service["metadata"]["name"], ports[endpoint["port"]]["port"]))
    yield from (f"nobody asks {n}" for n in sorted({("replica", 8081), ("worker", 9100)} - watched))
    for name, port in sorted(watched):
        if not reaches(documents, Party("prometheus", "monitoring"), Party(name), port):
            yield f"Prometheus does not reach {name}"


# Each with a case that breaks it ------------------------------------------------------------------

Change = Callable[[Documents], None]


def _at(kind: str, name: str, path: str, value: object) -> Change:
    """Put `value` at a path (`-` deletes) of a document."""

    def change(documents: Documents) -> None:
        *parents, last = path.split("/")
        inner: Any = named(documents, kind, name)
        for parent in parents:
            inner = inner[int(parent) if parent.isdigit() else parent]
        if value == "-":
            del inner[last]
        else:
            inner[int(last) if last.isdigit() else last] = value

    return change


def _gone(kind: str, name: str) -> Change:
    return lambda documents: documents.remove(named(documents, kind, name))


def _also(document: Document) -> Change:
    return lambda documents: documents.append(document)


_POD = "spec/template/spec"
_ONE = f"{_POD}/containers/0"
_SECURE = f"{_ONE}/securityContext"
_EVIL = {"name": "x", "hostPath": {"path": "/"}}
_LITERAL = {"name": "FLASHSALE_MYSQL_PASSWORD", "value": "secret"}
_TYPO = {"name": "FLASHSALE_WORKER_BATCHES", "value": "1"}
_SECRET = {"kind": "Secret", "metadata": {"name": "flashsale"}, "stringData": {"x": "y"}}
_OPEN = {
    "kind": "NetworkPolicy",
    "metadata": {"name": "open"},
    "spec": {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{}],
        "egress": [{}],
    },
}
_BOUND = {"kind": "ClusterRoleBinding", "metadata": {"name": "all"}}

BROKEN: list[tuple[Rule, Change]] = [
    (images_are_pinned, _at("Deployment", "nginx", f"{_ONE}/image", "nginx:latest")),
    (images_are_pinned, _at("Deployment", "nginx", f"{_ONE}/image", "nginx")),
    (images_are_pinned, _at("Job", "verify", f"{_ONE}/image", "flashsale:0.2.0")),
    (pods_are_restricted, _at("Namespace", "flashsale", "metadata/labels", {})),
    (pods_are_restricted, _at("Deployment", "nginx", f"{_POD}/hostNetwork", True)),
    (pods_are_restricted, _at("Deployment", "nginx", f"{_POD}/volumes/0", _EVIL)),
    (pods_are_restricted, _at("Deployment", "replica", f"{_POD}/securityContext/runAsUser", 0)),
    (pods_are_restricted, _at("Job", "storm", f"{_SECURE}/runAsNonRoot", False)),
    (pods_are_restricted, _at("Job", "seed", f"{_SECURE}/allowPrivilegeEscalation", "-")),
    (
        pods_are_restricted,
        _at("StatefulSet", "worker", f"{_SECURE}/capabilities", {"add": ["ALL"]}),
    ),
    (
        pods_are_restricted,
        _at("Job", "schema", f"{_SECURE}/seccompProfile", {"type": "Unconfined"}),
    ),
    (pods_are_restricted, _at("Job", "verify", f"{_SECURE}/readOnlyRootFilesystem", "-")),
    (nobody_asks_the_cluster, _at("Job", "storm", f"{_POD}/automountServiceAccountToken", True)),
    (nobody_asks_the_cluster, _at("Job", "storm", f"{_POD}/serviceAccountName", "admin")),
    (nobody_asks_the_cluster, _also(_BOUND)),
    (everything_is_bounded, _at("Deployment", "replica", f"{_ONE}/resources/limits/memory", "-")),
    (everything_is_bounded, _at("Job", "seed", f"{_POD}/initContainers/0/resources", {})),
    (everything_is_bounded, _at("Deployment", "nginx", f"{_POD}/volumes/0/emptyDir", {})),
    (everything_is_bounded, _at("Job", "storm", "spec/activeDeadlineSeconds", "-")),
    (probes_differ, _at("Deployment", "replica", f"{_ONE}/startupProbe", "-")),
    (probes_differ, _at("Deployment", "nginx", f"{_ONE}/livenessProbe/periodSeconds", 1)),
    (probes_differ, _at("StatefulSet", "worker", f"{_ONE}/readinessProbe/httpGet/port", "nowhere")),
    (ends_in_its_own_time, _at("Deployment", "replica", f"{_ONE}/lifecycle", "-")),
    (ends_in_its_own_time, _at("Deployment", "nginx", f"{_POD}/terminationGracePeriodSeconds", 15)),
    (
        ends_in_its_own_time,
        _at("StatefulSet", "worker", f"{_POD}/terminationGracePeriodSeconds", 9),
    ),
    (a_node_can_be_emptied, _gone("PodDisruptionBudget", "worker")),
    (a_node_can_be_emptied, _at("PodDisruptionBudget", "nginx", "spec/maxUnavailable", 0)),
    (
        spreads_over_zones_and_nodes,
        _at("Deployment", "nginx", f"{_POD}/topologySpreadConstraints", []),
    ),
    (
        spreads_over_zones_and_nodes,
        _at(
            "StatefulSet",
            "worker",
            f"{_POD}/topologySpreadConstraints/0/labelSelector/matchLabels",
            {"app.kubernetes.io/name": "replica"},
        ),
    ),
    (workers_keep_their_names, _at("StatefulSet", "worker", "kind", "Deployment")),
    (workers_keep_their_names, _at("StatefulSet", "worker", f"{_ONE}/args/6", "c1")),
    (autoscalers_agree, _at("StatefulSet", "worker", "spec/replicas", 2)),
    (autoscalers_agree, _at("HorizontalPodAutoscaler", "replica", "spec/minReplicas", 1)),
    (
        autoscalers_agree,
        _at("HorizontalPodAutoscaler", "replica", "spec/scaleTargetRef/name", "nobody"),
    ),
    (
        autoscalers_agree,
        _at("HorizontalPodAutoscaler", "worker", "spec/metrics/0/type", "Resource"),
    ),
    (each_reaches_whom_it_needs_and_nobody_else, _gone("NetworkPolicy", "names")),
    (each_reaches_whom_it_needs_and_nobody_else, _gone("NetworkPolicy", "nobody")),
    (each_reaches_whom_it_needs_and_nobody_else, _gone("NetworkPolicy", "stores")),
    (each_reaches_whom_it_needs_and_nobody_else, _also(_OPEN)),
    (
        each_reaches_whom_it_needs_and_nobody_else,
        _at("NetworkPolicy", "rendezvous", "spec/ingress/0/from", "-"),
    ),
    (secrets_are_by_reference, _also(_SECRET)),
    (secrets_are_by_reference, _at("Deployment", "replica", f"{_ONE}/env/0", _LITERAL)),
    (
        secrets_are_by_reference,
        _at("ConfigMap", "stores", "data/owner-mysql-url", "mysql://sale:pw@mysql/sale"),
    ),
    (secrets_are_by_reference, _at("Deployment", "replica", f"{_POD}/volumes/1/secret/items", [])),
    (secrets_are_by_reference, _at("Job", "verify", f"{_ONE}/env/3", _TYPO)),
    (secrets_are_by_reference, _at("StatefulSet", "worker", f"{_ONE}/volumeMounts", [])),
    (commands_exist, _at("Job", "schema", f"{_ONE}/args", ["scheme"])),
    (commands_exist, _at("Job", "storm", f"{_ONE}/args/1", "--part")),
    (commands_exist, _at("Job", "rendezvous", f"{_ONE}/env", [])),
    (settings_exist, _at("StatefulSet", "worker", f"{_ONE}/env/0", _TYPO)),
    (what_is_named_is_there, _gone("PersistentVolumeClaim", "toolkit")),
    (what_is_named_is_there, _gone("Service", "rendezvous")),
    (what_is_named_is_there, _gone("Service", "replica")),
    (what_is_named_is_there, _at("Service", "nginx", "spec/ports/0/targetPort", "https")),
    (what_is_named_is_there, _at("Job", "seed", f"{_POD}/volumes/1", _EVIL)),
    (a_storm_has_all_its_shards, _at("Job", "storm", "spec/parallelism", 2)),
    (a_storm_has_all_its_shards, _at("Job", "storm", "spec/completionMode", "-")),
    (a_storm_has_all_its_shards, _at("Job", "storm", "spec/backoffLimit", 0)),
    (a_storm_has_all_its_shards, _at("Job", "storm", "spec/backoffLimitPerIndex", 3)),
    (a_storm_has_all_its_shards, _at("Job", "storm", f"{_POD}/restartPolicy", "OnFailure")),
    (prometheus_finds_who_sells, _gone("ServiceMonitor", "worker")),
    (prometheus_finds_who_sells, _gone("NetworkPolicy", "monitoring")),
]
RULES = list(dict.fromkeys(rule for rule, _ in BROKEN))


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_overlay_keeps_every_rule(rule: Rule, overlay: str) -> None:
    assert list(rule(everything(overlay))) == []


@pytest.mark.parametrize(
    ("rule", "change"), BROKEN, ids=[f"{n}-{r.__name__}" for n, (r, _) in enumerate(BROKEN)]
)
def test_every_rule_can_be_broken(rule: Rule, change: Change) -> None:
    broken = everything("production")
    change(broken)
    assert list(rule(broken))


def test_with_keda_beside_the_autoscaler_of_workers_two_would_scale_the_same() -> None:
    both = everything("production-keda")
    both.append(named(everything("production"), "HorizontalPodAutoscaler", "worker"))
    assert "two scale the same" in list(autoscalers_agree(both))


def test_nginx_conf_is_what_the_template_renders() -> None:
    checked_in = (KUBERNETES / "base/nginx.conf").read_text()
    assert checked_in == NGINX.render(), "run `make compose`"
    (made,) = [
        d for d in of_kind(rendered("overlays/small"), "ConfigMap") if "nginx.conf" in d["data"]
    ]
    assert made["data"]["nginx.conf"] == checked_in
    assert re.fullmatch(r"nginx-[a-z0-9]{10}", made["metadata"]["name"]), "a change rolls nginx"


def test_a_worker_that_is_scaled_away_is_taken_over_before_the_next_one_goes() -> None:
    (policy,) = named(everything("production"), "HorizontalPodAutoscaler", "worker")["spec"][
        "behavior"
    ]["scaleDown"]["policies"]
    assert policy["periodSeconds"] * 1000 > WorkerSettings().claim_idle_ms


def test_no_folder_is_left_out_here() -> None:
    here = {path.parent.relative_to(KUBERNETES) for path in KUBERNETES.rglob("kustomization.yaml")}
    asked = {f"overlays/{name}" for name in OVERLAYS} | {f"jobs/{name}" for name in JOBS}
    within = {"base", "components/monitoring", "components/keda"}
    assert {str(folder) for folder in here} == asked | within
    listed = "".join(path.read_text() for path in KUBERNETES.rglob("kustomization.yaml"))
    files = [p.name for p in KUBERNETES.rglob("*.yaml") if p.name != "kustomization.yaml"]
    assert not [name for name in files if name not in listed]
    assert all(yaml.safe_load_all(p.read_text()) for p in KUBERNETES.rglob("*.yaml"))
