"""deploy/compose.yaml: valid by the Compose specification, and by the rules of this house.

Each rule is a function from the file to complaints, and has a case that breaks it.
"""

import ipaddress
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from jsonschema.validators import validator_for
from rig.compose import DEPLOY, environment, load, mounts, networks, own, read_env_file, seconds

from flashsale.cli.tree import tree
from flashsale.files import STORE_PASSWORDS
from flashsale.settings import OperatorSettings, ReplicaSettings, Settings
from flashsale.stack.nginx import COMPOSE as NGINX
from flashsale.stack.redis import RedisRole, account_rules

Compose = dict[str, Any]
Rule = Callable[[Compose], Iterator[str]]

EXPORTERS = {"redis-ledger-exporter", "redis-cache-exporter", "mysqld-exporter", "nginx-exporter"}
ONE_SHOT = {"schema", "toolkit"}
NOT_ROOT_BY_THEMSELVES = ("flashsale", "prom/", "grafana/", "oliver006/", "nginx/nginx-prometheus")
"""Images whose own USER is not root; the others are given one."""

SMALL = read_env_file(DEPLOY / "small.env")


# By the specification ---------------------------------------------------------------------------


def _violations(document: Compose) -> list[str]:
    schema = get_builtin_schema("vendor.compose-spec")
    return [error.message for error in validator_for(schema)(schema).iter_errors(document)]


@pytest.mark.parametrize("variables", [{}, SMALL], ids=["default", "small"])
def test_accepted_by_the_compose_specification(variables: Mapping[str, str]) -> None:
    assert _violations(load(variables)) == []


def test_the_specification_would_have_said_so() -> None:
    broken = load()
    broken["services"]["nginx"]["health_check"] = {}
    assert _violations(broken)


def test_small_changes_what_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    assert set(SMALL) <= asked
    cores = [service["deploy"]["resources"]["limits"]["cpus"] for service in _services(load(SMALL))]
    assert max(float(count) for count in cores) <= 2


# By the rules of the house ----------------------------------------------------------------------


def _services(compose: Compose) -> list[dict[str, Any]]:
    return list(compose["services"].values())


def images_are_pinned(compose: Compose) -> Iterator[str]:
    """A tag that names a version, so that tomorrow's stack is today's."""
    for name, service in compose["services"].items():
        tag = service["image"].partition(":")[2]
        if not re.search(r"\d+\.\d+", tag):
            yield f"{name}: {service['image']}"


def containers_are_hardened(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        if not service.get("read_only"):
            yield f"{name}: writes to its root"
        if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
            yield f"{name}: has capabilities"
        if "no-new-privileges:true" not in service.get("security_opt", ()):
            yield f"{name}: may gain privileges"
        if service.get("privileged") or service.get("pid") or service.get("network_mode"):
            yield f"{name}: shares what is the host's"


def nobody_is_root(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        user = str(service.get("user", ""))
        if not user and not service["image"].startswith(NOT_ROOT_BY_THEMSELVES):
            yield f"{name}: its image starts as root"
        if user.partition(":")[0] in ("0", "root"):
            yield f"{name}: is root"


def everything_is_bounded(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        for what in ("cpus", "memory", "pids"):
            if what not in limits:
                yield f"{name}: any amount of {what}"
        if not {"max-size", "max-file"} <= set(service["logging"].get("options", ())):
            yield f"{name}: logs without end"
        for mount in service.get("tmpfs", ()):
            if "size=" not in mount:
                yield f"{name}: {mount} without end"


def restarts_what_should_run(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        wanted = "no" if name in ONE_SHOT else "unless-stopped"
        if service.get("restart") != wanted:
            yield f"{name}: restart is {service.get('restart')}"


def health_is_checked(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        check = service.get("healthcheck", {})
        if name not in EXPORTERS | ONE_SHOT and "test" not in check:
            yield f"{name}: nobody asks how it is"
        if "test" in check and seconds(check["timeout"]) >= seconds(check["interval"]):
            yield f"{name}: asks again before it gave up"


def starts_after_what_it_needs(compose: Compose) -> Iterator[str]:
    services = compose["services"]
    for name, service in services.items():
        needs = service.get("depends_on", {})
        for needed, how in needs.items():
            finished = needed in ONE_SHOT
            wanted = "service_completed_successfully" if finished else "service_healthy"
            if how["condition"] != wanted:
                yield f"{name}: does not wait until {needed} is of use"
        named = {
            other
            for other in services
            for text in (*environment(service).values(), *map(str, service.get("command", ())))
            if re.search(rf"//(\w+@)?{re.escape(other)}:\d", text)
        }
        reached = _all_needs(services, name)
        yield from (f"{name}: does not wait for {other}" for other in sorted(named - reached))


def _all_needs(services: Mapping[str, Any], name: str) -> set[str]:
    needs = set(services[name].get("depends_on", ()))
    return needs.union(*(_all_needs(services, other) for other in needs))


def only_the_door_is_open(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        for port in service.get("ports", ()):
            if name != "nginx" and not str(port).startswith("127.0.0.1:"):
                yield f"{name}: {port} is open to everybody"
        on = set(networks(service))
        if service.get("ports") and all(compose["networks"][net].get("internal") for net in on):
            yield f"{name}: publishes from networks that nothing enters"
        if not service.get("ports") and not all(compose["networks"][n].get("internal") for n in on):
            yield f"{name}: reaches the world"


def passwords_are_in_files(compose: Compose) -> Iterator[str]:
    secret = re.compile(r"PASSWORD|TOKEN|SECRET")
    for name, service in compose["services"].items():
        for variable, value in environment(service).items():
            if secret.search(variable) and not variable.endswith("_FILE"):
                yield f"{name}: {variable} is in its environment"
            if re.search(r"://[^/@]*:[^/@]*@", value):
                yield f"{name}: {variable} has a password in it"


def secrets_are_granted(compose: Compose) -> Iterator[str]:
    """Who names a secret gets it, who gets one names it, and there is nobody without a name."""
    used = set()
    for name, service in compose["services"].items():
        granted = set(service.get("secrets", ()))
        told = json.dumps([service, [_text(source) for source, _ in mounts(service)]])
        named = set(re.findall(r"/run/secrets/([\w.]+\w)", told))
        yield from (f"{name}: was not given {secret}" for secret in sorted(named - granted))
        yield from (f"{name}: has no use for {secret}" for secret in sorted(granted - named))
        used |= granted
    yield from (f"nobody uses {secret}" for secret in sorted(set(compose["secrets"]) - used))


def _text(source: str) -> str:
    path = DEPLOY / source
    return path.read_text() if source.startswith(".") and path.is_file() else ""


def mounts_exist(compose: Compose) -> Iterator[str]:
    for name, service in compose["services"].items():
        for source, _ in mounts(service):
            if source.startswith("."):
                if not (DEPLOY / source).exists():
                    yield f"{name}: there is no {source}"
            elif source not in compose["volumes"]:
                yield f"{name}: there is no volume {source}"
        for volume in service.get("volumes", ()):
            if volume.startswith(".") and not volume.endswith(":ro"):
                yield f"{name}: may write {volume}"


def stops_in_its_own_time(compose: Compose) -> Iterator[str]:
    """Longer than a replica drains and closes, and than nginx keeps its old workers."""
    shutdown = re.search(r"worker_shutdown_timeout (\d+s)", NGINX.render())
    assert shutdown
    least = {
        **{name: ReplicaSettings().drain_timeout_s + 5 for name in _named(compose, "replica")},
        **dict.fromkeys(_named(compose, "worker"), 20.0),
        "nginx": seconds(shutdown[1]) + 2,
        "redis-ledger": 30.0,
        "mysql": 60.0,
    }
    for name, needed_s in least.items():
        if seconds(compose["services"][name].get("stop_grace_period", "10s")) < needed_s:
            yield f"{name}: is killed before {needed_s:g} s"


def _named(compose: Compose, command: str) -> list[str]:
    return [n for n, s in own(compose).items() if s["command"][0] == command]


def as_large_as_the_architecture(compose: Compose) -> Iterator[str]:
    """The figures of the seed architecture, and 6 GB of pages in MySQL."""
    wanted = {
        "replica1": ("2", "4608M"),
        "replica2": ("2", "4608M"),
        "replica3": ("2", "4608M"),
        "redis-ledger": ("2", "2G"),
        "mysql": ("3", "8G"),
    }
    for name, (cpus, memory) in wanted.items():
        limits = compose["services"][name]["deploy"]["resources"]["limits"]
        if (str(limits["cpus"]), limits["memory"]) != (cpus, memory):
            yield f"{name}: {limits}"
    if compose["services"]["mysql"]["command"] != ["--innodb-buffer-pool-size=6G"]:
        yield "mysql: not 6 GB of pages"


def nobody_shares_a_name(compose: Compose) -> Iterator[str]:
    """A worker's name is its consumer's: two of one name would take each other's entries."""
    seen: set[str] = set()
    for service in own(compose).values():
        if "--name" in service["command"]:
            given = service["command"][service["command"].index("--name") + 1]
            if given in seen:
                yield f"two are called {given}"
            seen.add(given)
    if not {"r1", "r2", "r3", "c1", "c2"} <= seen:
        yield "three replicas and two workers"


def commands_exist(compose: Compose) -> Iterator[str]:
    known = _flashsale_commands()
    for name, service in own(compose).items():
        command, *arguments = (str(word) for word in service["command"])
        if command not in known:
            yield f"{name}: there is no `flashsale {command}`"
            continue
        yield from (f"{name}: {said}" for said in _parsed(known[command], arguments))


def _flashsale_commands() -> dict[str, Any]:
    commands: dict[str, Any] = typer.main.get_command(tree()).commands  # type: ignore[attr-defined]
    return commands


def _parsed(command: Any, arguments: list[str]) -> Iterator[str]:
    try:
        command.make_context("flashsale", arguments)
    except Exception as error:  # noqa: BLE001 - whatever the parser has to say
        yield str(error)


def settings_exist(compose: Compose) -> Iterator[str]:
    options = {
        str(parameter.envvar)
        for command in _flashsale_commands().values()
        for parameter in command.params
        if parameter.envvar
    }
    fields = {
        f"{kind.model_config.get('env_prefix', '')}{field}".upper()
        for kind in Settings.__subclasses__()
        for field in kind.model_fields
    }
    files = {f"{name}_FILE" for name in (*STORE_PASSWORDS, "FLASHSALE_OPERATOR_TOKEN")}
    assert OperatorSettings in Settings.__subclasses__()
    for name, service in own(compose).items():
        unknown = set(environment(service)) - options - fields - files
        yield from (f"{name}: nobody reads {variable}" for variable in sorted(unknown))


def addresses_agree(compose: Compose) -> Iterator[str]:
    """nginx knows the replicas, the replicas trust nginx, and a toolkit alone is not limited."""
    services, (config,) = compose["services"], compose["networks"]["app"]["ipam"]["config"]
    subnet = ipaddress.ip_network(config["subnet"])
    lent = ipaddress.ip_network(config["ip_range"])
    fixed = {
        name: networks(service)["app"]["ipv4_address"]
        for name, service in services.items()
        if networks(service).get("app")
    } | {"the machine itself": config.get("gateway", config["ip_range"].partition("/")[0])}
    for name, text in fixed.items():
        address = ipaddress.ip_address(text)
        if address not in subnet or address in lent:
            yield f"{name}: {address} is not to be had"
    replicas = {name: fixed.get(name) for name in _named(compose, "replica")}
    if services["nginx"]["extra_hosts"] != replicas:
        yield "nginx does not know where the replicas are"
    for name in replicas:
        trusted = environment(services[name]).get("FLASHSALE_REPLICA_TRUSTED_PROXIES")
        if trusted != fixed["nginx"]:
            yield f"{name}: trusts {trusted}"
    if NGINX.limits is None or list(NGINX.limits.exempt) != [config["ip_range"]]:
        yield "nginx limits others than it should"
    if set(NGINX.replicas) != {f"{name}:8081" for name in replicas}:
        yield "nginx balances over others"


def prometheus_asks_who_is_there(compose: Compose) -> Iterator[str]:
    """Every target is a service that it can reach, and everybody who sells is a target."""
    services = compose["services"]
    uri = services["nginx-exporter"]["command"][0].partition("=")[2]
    if uri != f"http://nginx:{NGINX.status_listen}/stub_status":
        yield f"nginx does not count at {uri}"
    scraped = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    groups = [group for job in scraped for group in job["static_configs"]]
    targets = {target.partition(":")[0] for group in groups for target in group["targets"]}
    wanted = {*EXPORTERS, *_named(compose, "replica"), *_named(compose, "worker"), "localhost"}
    yield from (f"{name} is asked by nobody" for name in sorted(wanted - targets))
    for name in sorted(targets - {"localhost"}):
        if name not in services:
            yield f"there is no {name}"
        elif not set(networks(services[name])) & set(networks(services["prometheus"])):
            yield f"{name}: Prometheus cannot reach it"


def _without(path: str) -> Callable[[Compose], None]:
    def change(compose: Compose) -> None:
        *parents, last = path.split("/")
        inner = compose
        for parent in parents:
            inner = inner[parent]
        del inner[last]

    return change


def _with(path: str, value: object) -> Callable[[Compose], None]:
    def change(compose: Compose) -> None:
        *parents, last = path.split("/")
        inner = compose
        for parent in parents:
            inner = inner[parent]
        inner[last] = value

    return change


_TRUSTED = "services/replica1/environment/FLASHSALE_REPLICA_TRUSTED_PROXIES"

BROKEN: list[tuple[Rule, Callable[[Compose], None]]] = [
    (images_are_pinned, _with("services/grafana/image", "grafana/grafana:latest")),
    (images_are_pinned, _with("services/grafana/image", "grafana/grafana")),
    (containers_are_hardened, _without("services/mysql/read_only")),
    (containers_are_hardened, _with("services/nginx/cap_add", ["NET_ADMIN"])),
    (containers_are_hardened, _without("services/toolkit/security_opt")),
    (containers_are_hardened, _with("services/worker1/network_mode", "host")),
    (nobody_is_root, _without("services/nginx/user")),
    (nobody_is_root, _with("services/mysql/user", "0:0")),
    (everything_is_bounded, _without("services/grafana/deploy/resources/limits/memory")),
    (everything_is_bounded, _with("services/nginx/logging", {"driver": "json-file"})),
    (everything_is_bounded, _with("services/nginx/tmpfs", ["/run/nginx"])),
    (restarts_what_should_run, _with("services/worker2/restart", "no")),
    (health_is_checked, _without("services/replica2/healthcheck")),
    (health_is_checked, _with("services/mysql/healthcheck/timeout", "1m")),
    (
        starts_after_what_it_needs,
        _with("services/nginx/depends_on/replica1/condition", "service_started"),
    ),
    (starts_after_what_it_needs, _without("services/worker1/depends_on/redis-cache")),
    (only_the_door_is_open, _with("services/mysql/ports", ["127.0.0.1:3306:3306"])),
    (only_the_door_is_open, _with("services/prometheus/ports", ["9090:9090"])),
    (only_the_door_is_open, _without("networks/back/internal")),
    (passwords_are_in_files, _with("services/mysql/environment/MYSQL_PASSWORD", "secret")),
    (
        passwords_are_in_files,
        _with("services/worker1/environment/FLASHSALE_MYSQL_URL", "mysql://sale:pw@mysql/sale"),
    ),
    (secrets_are_granted, _with("services/replica1/secrets", ["ledger_password"])),
    (secrets_are_granted, _with("services/nginx/secrets", ["operator_token"])),
    (secrets_are_granted, _with("secrets/forgotten", {"file": "x"})),
    (mounts_exist, _with("services/nginx/volumes", ["./nowhere:/etc/nginx:ro"])),
    (mounts_exist, _with("services/nginx/volumes", ["./compose/nginx.conf:/etc/nginx.conf"])),
    (mounts_exist, _without("volumes/ledger")),
    (stops_in_its_own_time, _with("services/replica1/stop_grace_period", "10s")),
    (stops_in_its_own_time, _without("services/nginx/stop_grace_period")),
    (as_large_as_the_architecture, _with("services/mysql/deploy/resources/limits/cpus", "4")),
    (as_large_as_the_architecture, _with("services/mysql/command", [])),
    (nobody_shares_a_name, _with("services/worker2/command", ["worker", "--name", "c1"])),
    (nobody_shares_a_name, _without("services/replica3")),
    (commands_exist, _with("services/schema/command", ["scheme"])),
    (commands_exist, _with("services/worker1/command", ["worker"])),
    (settings_exist, _with("services/replica1/environment/FLASHSALE_REPLICA_NICE", "0")),
    (addresses_agree, _with("services/nginx/networks/app/ipv4_address", "10.89.77.200")),
    (addresses_agree, _with("services/nginx/extra_hosts/replica1", "10.89.77.14")),
    (addresses_agree, _without("networks/app/ipam/config/0/gateway")),
    (addresses_agree, _with(_TRUSTED, "10.89.77.0/24")),
    (addresses_agree, _with("networks/app/ipam/config/0/ip_range", "10.89.77.64/26")),
    (
        prometheus_asks_who_is_there,
        _with("services/nginx-exporter/command", ["--nginx.scrape-uri=http://nginx:8080/x"]),
    ),
    (prometheus_asks_who_is_there, _with("services/worker1/networks", ["back"])),
    (prometheus_asks_who_is_there, _without("services/mysqld-exporter")),
    (
        prometheus_asks_who_is_there,
        _with("services/worker3", {"image": "flashsale:0.1.0", "command": ["worker"]}),
    ),
]
RULES = list(dict.fromkeys(rule for rule, _ in BROKEN))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_file_keeps_every_rule(rule: Rule) -> None:
    assert list(rule(load())) == []


@pytest.mark.parametrize(
    ("rule", "change"), BROKEN, ids=[f"{n}-{r.__name__}" for n, (r, _) in enumerate(BROKEN)]
)
def test_every_rule_can_be_broken(rule: Rule, change: Callable[[Compose], None]) -> None:
    broken = load()
    if isinstance(broken["networks"]["app"]["ipam"]["config"], list):
        config = broken["networks"]["app"]["ipam"]["config"]
        broken["networks"]["app"]["ipam"]["config"] = _ByText(config)
    change(broken)
    assert list(rule(broken))


class _ByText(list[Any]):
    """A list whose places have names, for a path to one of them."""

    def __getitem__(self, place: Any) -> Any:
        return super().__getitem__(int(place))


def test_nginx_conf_is_what_the_template_renders() -> None:
    checked_in = (DEPLOY / "compose/nginx.conf").read_text()
    assert checked_in == NGINX.render(), "run `make compose`"


def test_every_secret_is_made(tmp_path: Path) -> None:
    for _ in range(2):
        before = {path.name: path.read_text() for path in tmp_path.glob("s/*")}
        subprocess.run([DEPLOY / "secrets.sh", tmp_path / "s"], check=True, capture_output=True)
        after = {path.name: path.read_text() for path in tmp_path.glob("s/*")}
        assert not before or before == after, "what exists stays"
    declared = {Path(secret["file"]).name for secret in load()["secrets"].values()}
    assert set(after) == declared
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700, "nobody else looks in"
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("s/*")} == {0o444}
    passwords = [text for name, text in after.items() if name.endswith(("_password", "_token"))]
    assert len(set(passwords)) == len(passwords) == 8
    assert all(re.fullmatch(r"[0-9a-f]{48}", password) for password in passwords)


def test_a_changed_password_reaches_those_who_are_told_in_another_form(tmp_path: Path) -> None:
    subprocess.run([DEPLOY / "secrets.sh", tmp_path], check=True, capture_output=True)
    (tmp_path / "ledger_password").unlink()
    (tmp_path / "mysqld_exporter.cnf").unlink()
    old = (tmp_path / "ledger.acl").read_text()
    subprocess.run([DEPLOY / "secrets.sh", tmp_path], check=True, capture_output=True)
    assert (tmp_path / "ledger.acl").read_text() != old
    told = json.loads((tmp_path / "redis_exporter.json").read_text())
    account = (tmp_path / "mysqld_exporter.cnf").read_text().splitlines()
    assert f"password={told['redis://redis-ledger:6379']}" in account
    assert len(set(told.values())) == 1


def test_an_account_may_do_in_compose_what_it_may_do_here(tmp_path: Path) -> None:
    subprocess.run([DEPLOY / "secrets.sh", tmp_path], check=True, capture_output=True)
    for role in RedisRole:
        lines = (tmp_path / f"{role}.acl").read_text().splitlines()
        told = {line.split(" ")[1]: line.split(" ", 4)[4] for line in lines}
        rules = {str(account): rule for account, rule in account_rules(role).items()}
        assert told == {"default" if name == "owner" else name: r for name, r in rules.items()}
        assert all(re.fullmatch(r"#[0-9a-f]{64}", line.split(" ")[3]) for line in lines)


@pytest.mark.parametrize("program", ["od", "sha256sum", "cat", "chmod"])
@pytest.mark.parametrize("how", ["exit 1", "exit 0"])
def test_no_secret_is_made_of_what_a_program_did_not_say(
    tmp_path: Path, program: str, how: str
) -> None:
    """One that fails, or says nothing, ends it: no empty password, and no hash of one."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / program).write_text(f"#!/bin/sh\n{how}\n")
    (programs / program).chmod(0o755)
    done = subprocess.run(
        [DEPLOY / "secrets.sh", tmp_path / "s"],
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    made = {path.name: path.read_text() for path in tmp_path.glob("s/[!.]*")}
    if (program, how) == ("chmod", "exit 0"):  # it has nothing to say
        assert done.returncode == 0
        return
    assert done.returncode == 1
    assert program == "chmod" or done.stderr.startswith("secrets.sh: ")
    assert not [name for name in made if name.endswith(".json")], "the last one is not reached"
    assert all(made.values())
