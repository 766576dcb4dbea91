"""Seeding against real stores: what it writes, and that a second run is a completion."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError
from sqlalchemy import text

from flashsale import keys
from flashsale.catalog.storefront import LOCK
from flashsale.cli.terminal import PlainProgress
from flashsale.errors import UnreachableError, UsageError, ViolationError
from flashsale.lua.scripts import script
from flashsale.seckill.control import SaleControl
from flashsale.seckill.permit import BooksComparison
from flashsale.seeding import load, sessions
from flashsale.seeding.load import seed
from flashsale.seeding.settings import SeedSettings, Silent
from flashsale.seeding.stores import alone, lock_name
from flashsale.settings import StoreSettings
from flashsale.storage import mysql

if TYPE_CHECKING:
    from tests.contract.seeding.conftest import Lab

NOWHERE = "127.0.0.1:1"


def test_a_data_set_stands_in_all_stores(lab: Lab) -> None:
    report = lab.seed()
    assert {stage.name: (stage.total, stage.added) for stage in report.stages} == {
        "shop types": (10, 10),
        "shops": (14, 14),
        "users": (1_005, 1_005),
        "user infos": (1_005, 1_005),
        "blogs": (4, 4),
        "follows": (7, 7),
        "vouchers": (1, 1),
        "sales": (1, 1),
        "sessions": (1_005, 1_005),
    }
    assert (lab.count("tb_user"), lab.count("tb_user_info")) == (1_005, 1_005)
    assert lab.count("tb_shop") == 14
    assert lab.sql("SELECT COUNT(DISTINCT phone), MIN(LENGTH(phone)) FROM tb_user") == [(1005, 11)]
    assert lab.sql("SELECT id, seed FROM tb_dataset") == [(report.dataset_id, 1)]
    assert lab.sql("SELECT id, type, status FROM tb_voucher") == [(1, 1, 1)]
    assert lab.sql("SELECT voucher_id, stock, initial_stock FROM tb_seckill_voucher") == [
        (1, 100, 100)
    ]


def test_a_session_is_the_users_and_lives_its_lifetime(lab: Lab) -> None:
    lab.seed(users=3)
    nick_name, icon = lab.sql("SELECT nick_name, icon FROM tb_user WHERE id = 2")[0]
    key = keys.login_token(lab.tokens()[2])
    session = lab.ledger.hgetall(key)
    ends_ms = int(session.pop("end"))
    assert session == {"id": "2", "nickName": nick_name, "icon": icon}
    lifetime_ms, longest_ms = 36_000 * 60_000, 129_600 * 60_000
    assert lifetime_ms - 60_000 < lab.ledger.pttl(key) <= lifetime_ms
    assert lab.ledger.zrange(keys.login_sessions(2), 0, -1, withscores=True) == [(key, ends_ms)]
    assert longest_ms - 60_000 < lab.ledger.pttl(keys.login_sessions(2)) <= longest_ms
    assert lab.ledger.dbsize() == 3 * 2 + lab.ledger.exists(keys.LOCK_FENCE)


def test_tokens_are_long_distinct_and_never_the_same_again(lab: Lab) -> None:
    lab.seed(users=50)
    first = lab.tokens()
    assert len(set(first.values())) == 50
    assert all(len(token) == 32 for token in first.values())
    lab.seed(users=50, reset=True)
    assert not set(first.values()) & set(lab.tokens().values())


def test_the_sale_is_open_now_and_in_utc(lab: Lab) -> None:
    before = datetime.now(UTC).replace(tzinfo=None)
    lab.seed(users=1)
    [(begin, end)] = lab.sql("SELECT begin_time, end_time FROM tb_seckill_voucher")
    assert timedelta(hours=1) <= before - begin + timedelta(seconds=5) <= timedelta(minutes=61)
    assert timedelta(days=6.9) < end - before < timedelta(days=7.1)


def test_a_second_run_changes_nothing(lab: Lab) -> None:
    first = lab.seed(users=300, vouchers=3)
    before = lab.everything()
    second = lab.seed(users=300, vouchers=3)
    assert lab.everything() == before
    assert first.changed
    assert not second.changed
    assert second.dataset_id == first.dataset_id


def test_more_users_extend_and_keep_every_session(lab: Lab) -> None:
    lab.seed(users=120)
    before, users = lab.tokens(), lab.sql("SELECT * FROM tb_user ORDER BY id")
    report = lab.seed(users=700, shops=20, vouchers=1)
    assert {stage.name: stage.added for stage in report.stages} == {
        "shop types": 0,
        "shops": 6,
        "users": 580,
        "user infos": 580,
        "blogs": 0,
        "follows": 0,
        "vouchers": 0,
        "sales": 0,
        "sessions": 580,
    }
    assert {user: lab.tokens()[user] for user in before} == before
    assert lab.sql("SELECT * FROM tb_user WHERE id <= 120 ORDER BY id") == users
    assert list(lab.tokens()) == list(range(1, 701))


def test_fewer_users_take_nothing_away(lab: Lab) -> None:
    lab.seed(users=700)
    before = lab.everything()
    assert not lab.seed(users=5).changed
    assert lab.everything() == before


def test_an_interrupted_run_is_completed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "CHUNK_ROWS", 100)
    monkeypatch.setattr(load, "STATEMENT_ROWS", 30)
    monkeypatch.setattr(sessions, "BATCH", 40)
    monkeypatch.setattr(lab.ledger.__class__, "eval", interrupted_after(3, lab.ledger.eval))
    with pytest.raises(KeyboardInterrupt):
        lab.seed(users=350)
    monkeypatch.undo()
    assert lab.count("tb_user") == 350
    assert not lab.tokens_path.exists()
    assert not list(lab.tokens_path.parent.glob("*.partial"))
    lab.sql("DELETE FROM tb_user WHERE id IN (1, 99, 100, 101, 350)")
    lab.sql("DELETE FROM tb_user_info WHERE user_id BETWEEN 150 AND 260")
    report = lab.seed(users=350)
    added = {stage.name: stage.added for stage in report.stages if stage.added}
    assert added == {"users": 5, "user infos": 111, "sessions": 350}
    assert (lab.count("tb_user"), lab.count("tb_user_info")) == (350, 350)


def interrupted_after(calls: int, whole: Callable[..., object]) -> Callable[..., object]:
    done = 0

    def call(_: object, *args: object) -> object:
        nonlocal done
        done += 1
        if done > calls:
            raise KeyboardInterrupt
        return whole(*args)

    return call


def test_only_sessions_that_ended_are_made_anew(lab: Lab) -> None:
    lab.seed(users=5)
    before = lab.tokens()
    lab.ledger.delete(keys.login_token(before[2]))
    lab.ledger.hset(keys.login_token(before[3]), "id", "4")  # somebody else's now
    lab.ledger.delete(keys.login_token(before[4]))
    lab.ledger.set(keys.login_token(before[4]), "no session at all")
    assert lab.seed(users=5).added == 3
    after = lab.tokens()
    assert {user for user in after if after[user] != before[user]} == {2, 3, 4}
    assert all(lab.ledger.hget(keys.login_token(after[user]), "id") == str(user) for user in after)


def test_a_dead_session_beyond_the_data_set_is_dropped(lab: Lab) -> None:
    lab.seed(users=5)
    before = lab.tokens()
    lab.ledger.delete(keys.login_token(before[5]))
    lab.seed(users=3)
    assert lab.tokens() == {user: before[user] for user in (1, 2, 3, 4)}


def test_a_used_session_is_kept_alive(lab: Lab) -> None:
    lab.seed(users=1)
    key = keys.login_token(lab.tokens()[1])
    lab.ledger.pexpire(key, 60_000)
    lab.seed(users=1)
    assert lab.ledger.pttl(key) > 35_000 * 60_000


def test_the_file_gets_its_mode_back(lab: Lab) -> None:
    lab.seed(users=2)
    before = lab.tokens()
    lab.tokens_path.chmod(0o644)
    lab.seed(users=2)
    assert lab.tokens_path.stat().st_mode & 0o777 == 0o600
    assert lab.tokens() == before


def test_an_empty_database_gets_its_schema(lab: Lab, blank_mysql_url: str) -> None:
    urls = lab.urls.model_copy(update={"mysql_url": blank_mysql_url})
    report = seed(SeedSettings(users=2), urls, lab.tokens_path, Silent())
    assert {stage.added for stage in report.stages} == {10, 14, 2, 4, 1}


def test_one_redis_may_have_both_roles(lab: Lab) -> None:
    lab.urls = lab.urls.model_copy(update={"cache_url": lab.urls.ledger_url})
    lab.seed(users=2)
    assert lab.warm().loaded == (1,)
    assert lab.ledger.exists(keys.CACHE_BOOT, keys.seckill_stock(1)) == 2
    lab.seed(users=2, reset=True)
    locks = {keys.LOCK_FENCE, keys.lock_wake(LOCK)}  # of the filling; a fence stays for ever
    left = [key for key in lab.ledger.scan_iter() if not key.startswith("bloom:")]
    left = [key for key in left if key not in locks]
    assert left == [key for key in left if key.startswith(("login:token:", "login:sessions:"))]
    assert len(left) == 2 * 2


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"units": 50}, r"--units: voucher 1 exists with 100 units, not 50; .*--reset"),
        ({"vouchers": 3}, r"--units: voucher 1 exists with 100 units, not 34; .*--reset"),
        ({"seed": 2}, r"--seed: this data set was made with 1, not 2; .*--reset"),
        (
            {"begin": datetime(2030, 1, 1, tzinfo=UTC)},
            r"--begin: voucher 1 exists with .*Z, not 2030-01-01T00:00:00\+00:00; .*--reset",
        ),
        ({"end": datetime(2099, 1, 1, tzinfo=UTC)}, r"--end: voucher 1 exists with .*--reset"),
    ],
)
def test_another_data_set_is_refused_before_anything_is_written(
    lab: Lab, other: dict[str, object], message: str
) -> None:
    lab.seed(users=4)
    before = lab.everything()
    with pytest.raises(UsageError, match=message):
        lab.seed(users=9, **other)
    assert lab.everything() == before


def test_the_same_hours_given_twice_are_no_contradiction(lab: Lab) -> None:
    begin = datetime(2030, 1, 1, 0, 0, 0, 5_000, tzinfo=UTC)
    lab.seed(users=1, begin=begin, end=begin + timedelta(days=1))
    assert not lab.seed(users=1, begin=begin, end=begin + timedelta(days=1)).changed


def test_vouchers_beside_the_first_ones_are_added(lab: Lab) -> None:
    lab.seed(users=1)
    lab.seed(users=1, first_voucher=10, vouchers=3, units=10)
    assert lab.sql("SELECT voucher_id, stock FROM tb_seckill_voucher ORDER BY 1") == [
        (1, 100),
        (10, 4),
        (11, 3),
        (12, 3),
    ]


def test_units_that_were_sold_are_no_contradiction(lab: Lab) -> None:
    lab.seed(users=1)
    lab.sql("UPDATE tb_seckill_voucher SET stock = 40")
    assert not lab.seed(users=1).changed
    assert lab.sql("SELECT stock FROM tb_seckill_voucher") == [(40,)]


def test_units_that_were_restocked_are_no_contradiction(lab: Lab) -> None:
    """Whoever lost the ledger seeds with the options of the first time, to have sessions again."""
    lab.seed(users=1)
    lab.warm()
    control = SaleControl(lab.pool, lab.ledger, "ann")
    control.restock(1, 7)
    control.restock(1, -2)
    with pytest.raises(ViolationError):
        control.restock(1, -1_000)
    assert not lab.seed(users=1).changed
    assert lab.sql("SELECT initial_stock FROM tb_seckill_voucher") == [(105,)]
    with pytest.raises(UsageError, match=r"exists with 105 units, not 55"):
        lab.seed(users=1, units=50)


def test_an_ordinary_voucher_is_not_put_on_sale(lab: Lab) -> None:
    lab.seed(users=1)
    lab.sql(
        "INSERT INTO tb_voucher (id, shop_id, title, pay_value, actual_value, type) "
        "VALUES (2, 1, 'ten off', 1, 2, 0)"
    )
    with pytest.raises(UsageError, match="--first-voucher: 2 is an ordinary voucher"):
        lab.seed(users=1, first_voucher=2)


@pytest.mark.parametrize("leftover", [keys.seckill_stock, keys.seckill_sale, keys.seckill_order])
def test_a_sale_that_only_the_ledger_knows_is_refused(
    lab: Lab, leftover: Callable[[int], str]
) -> None:
    lab.ledger.set(leftover(2), "7")
    with pytest.raises(
        UsageError, match=r"holds a sale of voucher 2 that MySQL does not .*--reset"
    ):
        lab.seed(users=1, vouchers=3)
    assert lab.count("tb_dataset") == lab.count("tb_user") == 0


def test_a_user_who_signed_in_with_a_phone_of_ours_is_named(lab: Lab) -> None:
    lab.seed(users=1)
    phone = lab.sql("SELECT phone FROM tb_user")[0][0]
    lab.sql(f"INSERT INTO tb_user (id, phone) VALUES (77, {int(phone) + 1})")
    with pytest.raises(UsageError, match=r"tb_user holds rows that clash .*--reset"):
        lab.seed(users=2)


def test_two_at_once_are_one_too_many(lab: Lab) -> None:
    with lab.pool.connect() as connection:
        lock = lock_name(connection.execute(text("SELECT DATABASE()")).scalar_one())
        connection.execute(text(f"SELECT GET_LOCK('{lock}', 0)"))
        with pytest.raises(UsageError, match="another `flashsale seed` is at work"):
            lab.seed(users=1)
        connection.execute(text(f"SELECT RELEASE_LOCK('{lock}')"))
    assert lab.seed(users=1).changed
    assert not lab.seed(users=1).changed  # the first run gave the lock back


def test_the_lock_ends_with_the_block_and_not_with_the_pool(lab: Lab) -> None:
    with alone(lab.pool):
        pass
    other = mysql.engine(lab.urls.mysql_url)
    with alone(other):
        assert lab.sql("SELECT 1") == [(1,)]
    other.dispose()


def test_sales_that_have_ended_are_mentioned(lab: Lab) -> None:
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    lab.seed(users=1, vouchers=2, begin=begin, end=begin + timedelta(days=1))
    notes: list[str] = []
    progress = PlainProgress(notes.append)
    seed(SeedSettings(users=1, vouchers=2), lab.urls, lab.tokens_path, progress)
    assert notes[0] == "2 of the sales have ended; --reset opens them anew"


def test_a_reset_makes_another_data_set_and_leaves_strangers_alone(lab: Lab) -> None:
    first = lab.seed(users=30)
    lab.warm()
    lab.ledger.xadd(keys.STREAM_ORDERS, {"userId": "1"})
    lab.ledger.set(keys.order_counter("2030:01:01"), 4_096)
    lab.ledger.set("somebody:else", "theirs")
    lab.sql("CREATE TABLE somebody_else AS SELECT 1 AS one")
    second = lab.seed(users=10, units=7, seed=5, reset=True)
    try:
        assert lab.count("somebody_else") == 1
    finally:
        lab.sql("DROP TABLE somebody_else")
    assert second.dataset_id != first.dataset_id
    assert lab.sql("SELECT id, seed FROM tb_dataset") == [(second.dataset_id, 5)]
    assert lab.count("tb_user") == 10
    found = sorted(lab.ledger.scan_iter())
    sessions_kept = [key for key in found if key.startswith("login:token:")]
    assert len(sessions_kept) == len(lab.tokens()) == 10
    noted = {keys.login_sessions(user_id) for user_id in range(1, 11)}
    assert sorted(set(found) - set(sessions_kept) - noted) == [
        "icr:order:2030:01:01",
        keys.LOCK_FENCE,
        "somebody:else",
    ]
    assert not lab.cache.exists(keys.CACHE_BOOT)


def test_a_store_out_of_reach_is_named(lab: Lab) -> None:
    nowhere = {
        "mysql_url": (f"mysql://u:secret@{NOWHERE}/flashsale", "--mysql-url"),
        "ledger_url": (f"redis://{NOWHERE}/0", "the ledger .*--ledger-url"),
        "cache_url": (f"redis://{NOWHERE}/0", "the cache .*--cache-url"),
    }
    for field, (url, message) in nowhere.items():
        urls = lab.urls.model_copy(update={field: url})
        with pytest.raises(UnreachableError, match=message) as caught:
            seed(SeedSettings(users=1), urls, lab.tokens_path, Silent())
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "url", "message"),
    [
        ("mysql_url", "mysql://127.0.0.1", "--mysql-url: expected mysql://user"),
        ("mysql_url", "postgresql://127.0.0.1/x", "expected mysql://"),
        ("ledger_url", "127.0.0.1", "--ledger-url: expected redis://"),
        ("cache_url", "http://127.0.0.1", "--cache-url: expected redis://"),
    ],
)
def test_a_malformed_url_is_named(lab: Lab, field: str, url: str, message: str) -> None:
    urls: StoreSettings = lab.urls.model_copy(update={field: url})
    with pytest.raises(UsageError, match=message):
        seed(SeedSettings(users=1), urls, lab.tokens_path, Silent())


def test_a_ledger_that_refuses_writes_is_reported(lab: Lab) -> None:
    lab.ledger.config_set("maxmemory", 1)
    try:
        with pytest.raises(UnreachableError, match=r"Redis: .*maxmemory.*goes on from here"):
            lab.seed(users=1)
    finally:
        lab.ledger.config_set("maxmemory", 0)
    assert lab.seed(users=1).added == 1


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["0", "9", "9", "1", "a", "b"],
        ["x", "9", "9", "1", "a", "b"],
        ["9", "0", "9", "1", "a", "b"],
        ["9", "9", "0", "1", "a", "b"],
        ["9000", "9", "9", "1", "a"],
    ],
)
def test_the_session_script_checks_before_it_writes(lab: Lab, values: list[str]) -> None:
    with pytest.raises(ResponseError, match=r"REFUSED session_create\.lua"):
        lab.ledger.eval(
            script("session_create").text, 2, "login:token:t", "login:sessions:1", *values
        )
    assert lab.ledger.dbsize() == 0


def test_a_replica_that_was_there_first_is_nobody_else(lab: Lab) -> None:
    """It has given the two stores their epoch; a reset takes that away with all the rest."""
    permit = BooksComparison(lab.ledger, lab.pool).permit()
    lab.seed(users=1)
    lab.warm()
    assert BooksComparison(lab.ledger, lab.pool).confirm() == permit
    lab.seed(users=1, reset=True)
    assert not lab.ledger.exists(keys.EPOCH, keys.PERMIT)
    assert lab.count("tb_stream_position") == 0
    assert BooksComparison(lab.ledger, lab.pool).confirm() != permit


def test_warming_a_ledger_that_is_behind_names_the_cure(lab: Lab) -> None:
    lab.seed(users=1)
    BooksComparison(lab.ledger, lab.pool).permit()
    lab.ledger.flushall()
    with pytest.raises(ViolationError, match=r"behind MySQL: .* `flashsale rebuild --apply`$"):
        lab.warm()
    assert not lab.ledger.exists(keys.seckill_stock(1))
