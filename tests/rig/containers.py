"""The services of deploy/compose.yaml as processes of this machine, each from its own lines there.

What a container would give them is replaced: names by loopback, ports by free ones, paths by
folders of the test. The command, the environment, the configuration file and the health check are
those of the file.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from flashsale.stack import binaries
from flashsale.stack.binaries import Binary
from flashsale.stack.mariadb import MariaDBServer
from flashsale.stack.nginx import COMPOSE as NGINX
from flashsale.stack.port import Port
from flashsale.stack.process import CommandLine, Process
from rig.compose import DEPLOY, ROOT, OnLoopback, environment, load
from rig.until import until

PORTS = {
    "nginx": (8080, 8090),
    **{f"replica{number}": (8081,) for number in (1, 2, 3)},
    **{f"worker{number}": (9100,) for number in (1, 2)},
    "redis-ledger": (6379,),
    "redis-cache": (6379,),
    "mysql": (3306,),
    "redis-ledger-exporter": (9121,),
    "redis-cache-exporter": (9121,),
    "mysqld-exporter": (9104,),
    "nginx-exporter": (9113,),
    "prometheus": (9090,),
}
_WATCHERS = {
    "redis-ledger-exporter": binaries.REDIS_EXPORTER,
    "redis-cache-exporter": binaries.REDIS_EXPORTER,
    "mysqld-exporter": binaries.MYSQL_EXPORTER,
    "nginx-exporter": binaries.NGINX_EXPORTER,
    "prometheus": binaries.PROMETHEUS,
}
"""What watches the sale, and the program that its image holds."""

CONFIGURATIONS = {
    "/etc/nginx/flashsale.conf": "nginx.conf",
    "/etc/redis/ledger.conf": "redis-ledger.conf",
    "/etc/redis/cache.conf": "redis-cache.conf",
}
_HEALTHY_S = 40.0
_INTERVAL_S = 0.1  # a check is a process: not a busy loop of them


@dataclass
class Containers:
    """The services that were started, in one folder; gone at the end."""

    folder: Path
    services: dict[str, Any] = field(default_factory=lambda: load()["services"])
    running: dict[str, Process] = field(default_factory=dict)
    _exits: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        ports: dict[tuple[str, int], int] = {}
        for name, numbers in PORTS.items():
            for number in numbers:
                port = self._exits.enter_context(_reserved())
                ports[name, number] = port.number
        self.port_of = ports
        self.secrets = self.folder / "secrets"
        subprocess.run([DEPLOY / "secrets.sh", self.secrets], check=True, capture_output=True)
        conf = self.folder / "conf"
        conf.mkdir()
        paths: dict[str, Path | str] = {
            there: conf / name for there, name in CONFIGURATIONS.items()
        }
        paths |= {"/run/secrets": self.secrets, "/run/nginx": self.folder / "nginx"}
        paths |= {
            "/var/lib/flashsale": self.folder / "work",
            "/etc/prometheus": conf / "prometheus",
        }
        paths |= {"=/prometheus": f"={self.folder / 'prometheus'}"}
        self.here = OnLoopback(ports, paths)
        self._map_secrets()

    def _map_secrets(self) -> None:
        """Two secrets say where a server is, too."""
        place = f"host=127.0.0.1\nport={self._port('mysql')}\n"
        told = {
            "redis_exporter.json": self.here.of("", self.secret("redis_exporter.json")),
            "mysqld_exporter.cnf": self.secret("mysqld_exporter.cnf").replace(
                "host=mysql\nport=3306\n", place
            ),
        }
        for name, text in told.items():
            assert text != self.secret(name)
            (self.secrets / name).unlink()
            (self.secrets / name).write_text(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.running.values()):
            process.stop(20)
        self._exits.close()

    def secret(self, name: str) -> str:
        """What the file of a secret holds."""
        return (self.secrets / name).read_text()

    # Each kind of server ------------------------------------------------------------------------

    def start_redis(self, name: str) -> None:
        """By its command and its file; the port and the data folder are a container's."""
        binary = binaries.find(binaries.REDIS)
        data = self.folder / name
        data.mkdir()
        conf = self._configure(name)
        text = conf.read_text().replace("dir /data\n", f"dir {data}\n")
        text = text.replace("port 6379\n", f"port {self.port_of[name, 6379]}\n")
        conf.write_text(text.replace("bind * -::*\n", "bind 127.0.0.1\n"))
        program, *arguments = self.services[name]["command"]
        assert program == "redis-server"
        self.launch(name, binary, [str(binary.path), *self.here.command(name, arguments)])

    def start_nginx(self, *, toolkit_at: str | None = None) -> None:
        """By its entry point, its command and its file; a toolkit's network may be elsewhere."""
        binary = binaries.find(binaries.NGINX)
        (self.folder / "nginx").mkdir()
        conf = self._configure("nginx")
        text = self.here.of("nginx", conf.read_text())
        for port in PORTS["nginx"]:
            text = text.replace(f"listen {port}", f"listen 127.0.0.1:{self.port_of['nginx', port]}")
        if toolkit_at:
            (lent,) = NGINX.limits.exempt if NGINX.limits else ()
            text = text.replace(f"{lent} 0;", f"{toolkit_at} 0;")
        log = self.folder / "access.log"
        conf.write_text(text.replace("/dev/stdout", str(log)))  # nobody's standard output here
        assert self.services["nginx"]["entrypoint"] == ["nginx"]
        command = self.here.command("nginx", self.services["nginx"]["command"])
        self.launch("nginx", binary, [str(binary.path), *command])

    def start_mysql(self) -> None:
        """MariaDB on MySQL's file, with the accounts that the image's entry point would make."""
        binary = binaries.find(binaries.MARIADB)
        (self.folder / "mysql").mkdir()
        fresh = MariaDBServer(self.folder / "mysql", buffer_pool_mb=32, redo_log_mb=16)
        fresh.prepare()  # the data folder, and the paths of this machine
        fresh.port.close()
        wanted = ("basedir", "lc-messages-dir", "plugin-dir", "datadir", "tmpdir")
        given = [
            "--" + line.replace(" = ", "=").replace('"', "")
            for line in (self.folder / "mysql/my.cnf").read_text().splitlines()
            if line.startswith(wanted)
        ]
        init = self.folder / "mysql/accounts.sql"
        init.write_text(self.accounts_sql())
        arguments = [
            f"--defaults-file={DEPLOY / 'compose/mysql.cnf'}",
            *given,
            "--bind-address=127.0.0.1",
            f"--port={self.port_of['mysql', 3306]}",
            f"--socket={self.folder / 'mysql/s'}",
            f"--pid-file={self.folder / 'mysql/pid'}",
            f"--init-file={init}",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            *(["--user=root"] if os.geteuid() == 0 else []),
        ]
        self.launch("mysql", binary, [str(binary.path), *arguments])

    def start_watcher(self, name: str) -> None:
        """Prometheus or an exporter, by its command; the port is a container's."""
        binary = binaries.find(_WATCHERS[name])
        if name == "prometheus":
            self._configure_prometheus()
        (port,) = PORTS[name]
        listen = f"--web.listen-address=127.0.0.1:{self.port_of[name, port]}"
        command = self.here.command(name, self.services[name]["command"])
        told = self.here.environment(name, environment(self.services[name]))
        self.launch(name, binary, [str(binary.path), listen, *command], told)

    def _configure_prometheus(self) -> None:
        """Its folder, with the services' addresses in place of their names, and no long waits."""
        (source,) = [v for v in self.services["prometheus"]["volumes"] if v.startswith(".")]
        assert source == "./prometheus:/etc/prometheus:ro"
        place = self.folder / "conf/prometheus"
        shutil.copytree(DEPLOY / "prometheus", place)
        for file in place.glob("*.yml"):
            text = self.here.of("prometheus", file.read_text())
            text = text.replace("localhost:9090", f"127.0.0.1:{self._port('prometheus')}")
            file.write_text(re.sub(r"(scrape_(interval|timeout)): \ds", r"\1: 1s", text))

    def _port(self, name: str) -> int:
        (port,) = PORTS[name]
        return self.port_of[name, port]

    def accounts_sql(self) -> str:
        """What the image's entry point does with its environment, and then our own script."""
        variables = environment(self.services["mysql"])
        user, database = variables["MYSQL_USER"], variables["MYSQL_DATABASE"]
        password = Path(self.here.of("mysql", variables["MYSQL_PASSWORD_FILE"])).read_text()
        script = (DEPLOY / "compose/mysql-accounts.sh").read_text()
        entry_point = (
            f"docker_process_sql() {{ cat; }}\nMYSQL_USER={user}\nMYSQL_DATABASE={database}\n"
        )
        ours = subprocess.run(
            ["sh", "-euc", entry_point + self.here.of("mysql", script)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        statements = " ".join(ours.split()).replace("; ", ";\n")  # MariaDB: one statement a line
        return (
            f"CREATE DATABASE IF NOT EXISTS `{database}`;\n"
            f"CREATE USER '{user}'@'%' IDENTIFIED BY '{password}';\n"
            f"GRANT ALL ON `{database}`.* TO '{user}'@'%';\n{statements}\n"
        )

    def start_own(self, *names: str) -> None:
        """Services of our image, by command and environment."""
        for name in names:
            service = self.services[name]
            command = [sys.executable, "-m", "flashsale"]
            command += self.here.command(name, service["command"])
            self.launch(name, None, command, self.own_environment(name))

    def run(self, name: str, *arguments: str, check: bool = True) -> str:
        """A one-shot of our image, as `docker compose run --rm` has it; what it printed."""
        command = [sys.executable, "-m", "flashsale"]
        command += arguments or self.here.command(name, self.services[name]["command"])
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        done = subprocess.run(
            command,
            env=self.own_environment(name),
            cwd=work,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def own_environment(self, name: str) -> dict[str, str]:
        """What the service finds in Compose, and what this machine's Python wants."""
        machine = {k: os.environ[k] for k in ("PATH", "HOME", "LANG") if k in os.environ}
        machine["PYTHONPATH"] = str(ROOT)
        return machine | self.here.environment(name, environment(self.services[name]))

    # Their health -------------------------------------------------------------------------------

    def is_healthy(self, name: str) -> bool:
        """By the service's own health check, run as a container would run it."""
        kind, *words = self.services[name]["healthcheck"]["test"]
        words = self.here.command(name, words)
        if kind == "CMD-SHELL":
            words = ["sh", "-c", words[0].replace("redis-cli", self._redis_cli(name))]
        elif words[0] == "python":
            words[0] = sys.executable
        elif words[0] == "wget" and shutil.which("wget") is None:  # the images have it
            words = [sys.executable, "-m", "flashsale.stack.probe", words[-1]]
        done = subprocess.run(words, env=self._health_environment(name), check=False, timeout=10)
        return done.returncode == 0

    def await_healthy(self, *names: str) -> None:
        """Wait until each is, as `depends_on: {condition: service_healthy}` does."""
        for name in names:
            until(lambda name=name: self._fine(name), _HEALTHY_S)  # type: ignore[misc]

    def _fine(self, name: str) -> bool:
        process = self.running[name]
        assert process.exit_code is None, f"{name} ended:\n{process.log_tail()}"
        healthy = self.is_healthy(name)
        if not healthy:
            time.sleep(_INTERVAL_S)
        return healthy

    def _redis_cli(self, name: str) -> str:
        program = binaries.find(binaries.REDIS).path.parent / "redis-cli"
        return f"{program} -p {self.port_of[name, 6379]}"

    def _health_environment(self, name: str) -> Mapping[str, str]:
        if "redis" in name:
            return binaries.find(binaries.REDIS).environment()
        return {**os.environ, "PYTHONPATH": str(ROOT)}

    # Ways and means ----------------------------------------------------------------------------

    def _configure(self, name: str) -> Path:
        """The file that Compose mounts for it, where the command will look."""
        (source,) = [
            volume.split(":")
            for volume in self.services[name]["volumes"]
            if volume.startswith("./compose/")
        ]
        place = Path(self.here.of(name, source[1]))
        shutil.copyfile(DEPLOY / source[0], place)
        text = place.read_text().replace("/run/secrets", str(self.secrets))
        place.write_text(text)
        return place

    def launch(
        self,
        name: str,
        binary: Binary | None,
        arguments: Sequence[str],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        found = (binary.environment() if binary else {}) | dict(variables or {})
        line = CommandLine(list(arguments), found, folder)
        self.running[name] = Process(line, self.folder / f"{name}.log")


@contextmanager
def _reserved() -> Iterator[Port]:
    port = Port.free()
    try:
        yield port
    finally:
        port.close()
