"""A storm and a judge, run as a user runs them, on a sale with faults in it."""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from rig.command_line import run_flashsale
from rig.faulty_sale import FaultySale
from rig.sale_by_commands import SaleByCommands


@dataclass
class JudgedStorm:
    """A folder to work in, and the stores of one sale. `noted` is who is to be named."""

    folder: Path
    ledger_url: str
    mysql_url: str
    noted: dict[str, int] = field(default_factory=dict)

    def market(self, vouchers: int = 1, units: int = 4) -> SaleByCommands:
        """A sale in the stores."""
        return SaleByCommands(self.ledger_url, self.mysql_url, vouchers, units)

    def scenario(self, users: int, vouchers: int = 1, units: int = 4, **more: str) -> None:
        """Write a scenario, one buyer after another, and the tokens of its users."""
        load = {"connections": "1", **more}
        lines = "\n".join(f"{name} = {value}" for name, value in load.items())
        (self.folder / "proof.toml").write_text(
            f'schema = 1\nname = "proof"\n[sale]\nvouchers = {vouchers}\n'
            f'units = {vouchers * units}\n[load]\nmodel = "stampede"\nusers = {users}\n{lines}\n'
            "[timeouts]\nclaim_ms = 1\nrequest_ms = 300\n"
        )
        tokens = "".join(f"{user},token-{user}\n" for user in range(1, users + 1))
        (self.folder / "tokens.csv").write_text("user_id,token\n" + tokens)

    def flashsale(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run the command line."""
        own = {
            "FLASHSALE_LEDGER_URL": self.ledger_url,
            "FLASHSALE_CACHE_URL": self.ledger_url,
            "FLASHSALE_MYSQL_URL": self.mysql_url,
        }
        return run_flashsale(self.folder, *words, **own)

    def storm(self, sale: FaultySale, run: str) -> "subprocess.CompletedProcess[str]":
        """Storm the sale into the run folder `run`."""
        with sale.open() as server:
            where = ["--base-url", server.base_url, "--tokens", "tokens.csv"]
            done = self.flashsale(
                "storm", "proof.toml", "--quiet", "--no-calibrate", "--out", run, *where
            )
        assert "Traceback" not in done.stderr, done.stderr
        assert "storm:" not in done.stderr, done.stderr  # baseline and end are there
        return done

    def verify(self, run: str) -> "Verdict":
        """Judge it."""
        done = self.flashsale("verify", run, "--drain-timeout", "0.3", "--json")
        assert "Traceback" not in done.stderr, done.stderr
        return Verdict(done.returncode, orjson.loads(done.stdout))

    def lines(self, run: str, kind: str) -> list[dict[str, Any]]:
        """The record's lines of a kind."""
        record = (self.folder / run / "attempts.jsonl").read_bytes().splitlines()
        return [line for line in map(orjson.loads, record) if line["kind"] == kind]


@dataclass(frozen=True)
class Verdict:
    """What the judge said."""

    exit_code: int
    document: dict[str, Any]

    @property
    def failed(self) -> set[str]:
        """The checks that failed."""
        return {c["name"] for c in self.document["checks"] if c["verdict"] == "fail"}

    def offences(self, check: str, verdict: str = "fail") -> list[dict[str, Any]]:
        """Everyone whom a check names with that weight."""
        (found,) = (c for c in self.document["checks"] if c["name"] == check)
        weighty = (f for f in found["findings"] if f["verdict"] == verdict)
        return [offence for finding in weighty for offence in finding["offences"]]

    def tripped_by(self, voucher: int) -> set[str]:
        """The checks that fail because of this voucher."""
        return {
            name
            for name in self.failed
            if any(offence["voucher"] == voucher for offence in self.offences(name))
        }
