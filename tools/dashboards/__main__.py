"""`python -m tools.dashboards`: write every dashboard's JSON, and say what changed."""

from pathlib import Path

from tools.dashboards import cache, http, mysql, orders, process, redis, sale

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"
BOARDS = {
    "sale": sale.BOARD,
    "http": http.BOARD,
    "cache": cache.BOARD,
    "orders": orders.BOARD,
    "redis": redis.BOARD,
    "mysql": mysql.BOARD,
    "process": process.BOARD,
}


def main() -> None:
    """Write what differs; remove what no code makes."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for stale in {path.stem for path in FOLDER.glob("*.json")} - set(BOARDS):
        (FOLDER / f"{stale}.json").unlink()
    for name, board in BOARDS.items():
        place, text = FOLDER / f"{name}.json", board.to_json()
        if not place.exists() or place.read_text() != text:
            place.write_text(text)
            print(place)


if __name__ == "__main__":
    main()
