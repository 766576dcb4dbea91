"""Which commands there are: a table that costs nothing to load, and the help that it makes."""

ABOUT = "Run a flash sale, storm it, and prove that nothing was oversold, sold twice or lost."

COMMANDS = {
    "rehearse": ("rehearse:command", "Serve, seed, warm, storm and verify on a fresh stack."),
    "chaos": ("trials:chaos", "Break stacks on purpose, from seeds, and judge what they sold."),
    "capacity": ("trials:capacity", "Find the highest rate at which a scenario holds."),
    "serve": ("serve:command", "Start what is missing (Redis ×2, MariaDB, nginx, …), keep it up."),
    "status": ("machine:status", "Show every process of the stack and whether it answers."),
    "stop": ("machine:stop", "Stop a stack, gracefully."),
    "doctor": ("machine:doctor", "Examine machine, programs, and the stores of a stack."),
    "panels": ("machine:panels_command", "Run each panel's queries on the stack's Prometheus."),
    "services": ("machine:services", "The programs that private servers run from."),
    "seed": ("seed:seed", "Bring a data set about: users, sessions, shops, vouchers on sale."),
    "warm": ("seed:warm", "Load every sale into the ledger, the catalogue into the cache."),
    "sale": ("sale:command", "What is on sale: list, open, pause, resume, restock, close."),
    "orders": ("repair:orders", "One order wherever it is; dead letters, settled."),
    "rebuild": ("repair:rebuild_command", "Restore a ledger that is behind or has lost keys."),
    "storm": ("storm:command", "Storm a sale or a storefront, and record every attempt."),
    "rendezvous": ("rendezvous:command", "Where shards of a storm meet: one instant, one run."),
    "target": ("storm:target_command", "Try one request of each kind on somebody's shop."),
    "verify": ("run:verify", "Judge a run: nothing oversold, sold twice or lost."),
    "report": ("run:report", "Render, compare or merge runs."),
}
PROCESSES = {
    "replica": ("processes:replica", "Serve the sale from one process."),
    "worker": ("processes:worker", "Carry accepted orders from the stream to MySQL."),
    "schema": ("processes:schema", "Create the tables that are missing."),
}
"""Name → module of this package with its function or Typer, and what it does in a line."""

HEADINGS = {"Commands": COMMANDS, "Single processes, for containers": PROCESSES}


def help_text() -> str:
    """What `flashsale --help` prints."""
    lines = ["", " Usage: flashsale [OPTIONS] COMMAND [ARGS]...", "", f" {ABOUT}"]
    for heading, commands in HEADINGS.items():
        lines += ["", f" {heading}"]
        lines += [f"   {name:<12}{summary}" for name, (_, summary) in commands.items()]
    options = (("--version", "Print the version."), ("--help", "Show this, or a command's."))
    lines += ["", " Options", *(f"   {name:<12}{what}" for name, what in options), ""]
    return "\n".join(lines) + "\n"
