"""Seeding beside real data: nothing that a data set did not make is touched, or signed in as."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from flashsale import keys
from flashsale.catalog.storefront import Storefront
from flashsale.errors import UsageError
from flashsale.seeding.load import seed
from flashsale.seeding.settings import SeedSettings, Silent
from flashsale.seeding.warm import storefront_cache
from flashsale.storage import mysql

if TYPE_CHECKING:
    from tests.contract.seeding.conftest import Lab

SIGN_IN = "INSERT INTO tb_user (phone, nick_name) VALUES ('{phone}', 'user_of_her_own')"
ORDER = (
    "INSERT INTO tb_voucher_order (id, user_id, voucher_id, create_time) "
    "VALUES ({id}, {user}, {voucher}, '2030-01-01')"
)
SHOP = "INSERT INTO tb_shop (name, type_id, x, y) VALUES ('Mine', 1, 1, 2)"
THEIRS = {
    "user": SIGN_IN.format(phone=18_888_000_001),
    "shop": SHOP,
    "order of an unknown user": ORDER.format(id=1, user=99, voucher=1),
    "order of an unknown voucher": ORDER.format(id=1, user=1, voucher=99),
    "sign-in day": "INSERT INTO tb_sign (user_id, date) VALUES (99, '2030-01-01')",
    "like": "INSERT INTO tb_blog_like (user_id, blog_id) VALUES (99, 1)",
    "return": "INSERT INTO tb_order_return (order_id, user_id, voucher_id) VALUES (1, 99, 1)",
    "journal": (
        "INSERT INTO tb_journal (step, action, voucher_id, actor) "
        "VALUES ('done', 'retry', 99, 'hers')"
    ),
    "position": "INSERT INTO tb_stream_position (stream, last_ms, last_seq) VALUES ('x', 1, 1)",
    "sale": (
        "INSERT INTO tb_seckill_voucher (voucher_id, stock, initial_stock, begin_time, end_time) "
        "VALUES (77, 1, 1, '2030-01-01', '2030-01-02')"
    ),
}


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("theirs", THEIRS.values(), ids=THEIRS)
def test_a_database_of_other_people_is_refused_untouched(
    lab: Lab, theirs: str, reset: bool
) -> None:
    lab.sql(theirs)
    lab.ledger.hset(keys.login_token("hers"), mapping={"id": "1", "nickName": "user_of_her_own"})
    lab.cache.set(keys.cache_entry("shop", 1), "theirs")
    lab.tokens_path.write_text("user_id,token\n")
    before = lab.everything()
    with pytest.raises(UsageError, match=r"holds rows, .* somebody else's; .*empty database"):
        lab.seed(users=3, reset=reset)
    assert lab.everything() == before
    assert lab.cache.get(keys.cache_entry("shop", 1)) == "theirs"


@pytest.mark.parametrize("theirs", THEIRS.values(), ids=THEIRS)
def test_a_reset_is_refused_beside_other_peoples_rows(lab: Lab, theirs: str) -> None:
    lab.seed(users=3)
    lab.sql(theirs)
    before = lab.everything()
    with pytest.raises(UsageError, match=r"--reset: .*no data set made \(1 in tb_\w+\)"):
        lab.seed(users=3, reset=True)
    assert lab.everything() == before


WALLETS = (
    "CREATE TABLE wallets (user BIGINT NOT NULL, "
    "CONSTRAINT owner FOREIGN KEY (user) REFERENCES tb_user (id) ON DELETE {action})"
)


@pytest.mark.parametrize("action", ["CASCADE", "RESTRICT"])
def test_a_reset_is_refused_where_rows_of_others_hang_on_ours(lab: Lab, action: str) -> None:
    lab.seed(users=3)
    lab.sql(WALLETS.format(action=action))
    try:
        lab.sql("INSERT INTO wallets VALUES (1)")
        before = lab.everything()
        with pytest.raises(UsageError, match=r"--reset: rows of \w+\.wallets, .* hang on tb_user"):
            lab.seed(users=3, reset=True)
        assert lab.everything() == before
        assert lab.sql("SELECT user FROM wallets") == [(1,)]
        assert not lab.seed(users=3).changed
    finally:
        lab.sql("DROP TABLE wallets")


def test_a_trigger_of_others_is_not_set_off(lab: Lab) -> None:
    lab.sql("CREATE TABLE audit (phone VARCHAR(11))")
    lab.sql(
        "CREATE TRIGGER watched AFTER INSERT ON tb_user "
        "FOR EACH ROW INSERT INTO audit VALUES (NEW.phone)"
    )
    try:
        with pytest.raises(UsageError, match="tb_user has a trigger watched of somebody else's"):
            lab.seed(users=3)
        assert lab.sql("SELECT * FROM audit") == []
    finally:
        lab.sql("DROP TRIGGER watched")
        lab.sql("DROP TABLE audit")


def test_who_signed_in_herself_gets_no_session_of_the_data_sets(lab: Lab) -> None:
    lab.seed(users=3)
    lab.sql(SIGN_IN.format(phone=18_888_000_001))
    [(hers,)] = lab.sql("SELECT id FROM tb_user WHERE nick_name = 'user_of_her_own'")
    before = lab.everything()
    with pytest.raises(UsageError, match=f"tb_user holds a row {hers} that no data set made"):
        lab.seed(users=hers)
    assert lab.everything() == before
    assert not lab.seed(users=3).changed  # who is not in the way does not disturb
    assert list(lab.tokens()) == [1, 2, 3]


def test_a_shop_that_somebody_added_is_not_taken_for_one_of_ours(lab: Lab) -> None:
    lab.seed(users=1)
    lab.sql(SHOP)
    [(theirs,)] = lab.sql("SELECT id FROM tb_shop WHERE name = 'Mine'")
    with pytest.raises(UsageError, match=f"tb_shop holds a row {theirs}"):
        lab.seed(users=1, shops=theirs)


def test_a_phone_of_the_data_sets_is_found_before_a_row_is_written(lab: Lab) -> None:
    lab.seed(users=1)
    phone = int(lab.sql("SELECT phone FROM tb_user")[0][0]) + 1
    lab.sql(f"INSERT INTO tb_user (id, phone) VALUES (77, '{phone}')")
    before = lab.everything()
    with pytest.raises(UsageError, match="tb_user holds rows that clash"):
        lab.seed(users=2, shops=20)
    assert lab.everything() == before


def test_a_reset_takes_what_hangs_on_the_data_set_and_nothing_of_others(lab: Lab) -> None:
    lab.seed(users=3)
    lab.warm()
    nick_name = lab.sql("SELECT nick_name FROM tb_user WHERE id = 2")[0][0]
    phone = lab.sql("SELECT phone FROM tb_user WHERE id = 2")[0][0]
    lab.sql(ORDER.format(id=1, user=2, voucher=1))
    lab.sql("INSERT INTO tb_sign (user_id, date) VALUES (2, '2030-01-01')")
    lab.sql("INSERT INTO tb_blog_like (user_id, blog_id) VALUES (2, 1)")
    lab.sql(
        "INSERT INTO tb_journal (step, action, voucher_id, actor, becomes) "
        "VALUES ('planned', 'close', 1, 'ann', 'closed')"
    )
    lab.ledger.hset(keys.seckill_idempotency(1), "2", "digest 1")
    ours = (keys.login_token("again"), keys.login_code(phone), keys.sign(2, "203001"))
    lab.ledger.hset(ours[0], mapping={"id": "2", "nickName": nick_name})
    lab.ledger.hset(ours[1], "code", "1")
    lab.ledger.setbit(ours[2], 1, 1)
    theirs = {keys.login_token("hers"), keys.login_code("18888000001"), keys.sign(9, "203001")}
    theirs |= {"sign:here", "login:token:of:another:system", "seckill:report"}
    for key in theirs:
        lab.ledger.hset(key, mapping={"id": "2", "nickName": "user_of_her_own"})
    lab.ledger.delete("login:token:of:another:system")
    lab.ledger.set("login:token:of:another:system", "a string")
    strangers = (
        *("cache:users:1", "bloom:of:another", "lock:shopping", "cache:shop:report:2024"),
        *("cache:shop:1x", "cache:user:1:profile", "lock:shop:01", "shop:geo:1:index"),
        *("cache:shop-type:1", "cache:shop:+1", "feed:1:read", "lock:shop:geo:1:2"),
    )
    pages = (
        *("cache:shop:1", "lock:shop:1", "cache:shop-type:all", "cache:shop-type-page:1:2"),
        *("cache:shop-name-page:1:a\nb:c", "cache:blog-hot:1", "shop:geo:3", "lock:feed:7"),
        *("shop:geo:3:0123456789abcdef", "lock:shop:geo:3", "cache:user:9"),
    )
    for key in (*strangers, *pages):
        lab.cache.set(key, "theirs")
    lab.seed(users=1, reset=True)
    gone = (*ours, keys.LOADED_SALES, keys.seckill_stock(1), keys.seckill_idempotency(1))
    assert not lab.ledger.exists(*gone)
    assert lab.ledger.exists(*theirs) == len(theirs)
    assert lab.cache.exists(*strangers) == len(strangers)
    assert not lab.cache.exists(*pages)
    assert lab.count("tb_user") == 1
    tables = ("tb_voucher_order", "tb_sign", "tb_blog_like", "tb_journal", "tb_stream_position")
    assert sum(lab.count(table) for table in tables) == 0


@pytest.mark.parametrize("where", ["sale", "stream"])
def test_a_ledger_of_another_system_is_refused_untouched(lab: Lab, where: str) -> None:
    lab.seed(users=2)
    if where == "sale":
        lab.ledger.set(keys.seckill_stock(5), 7)
    else:
        lab.ledger.xadd(keys.STREAM_ORDERS, {"userId": "1", "voucherId": "5", "id": "9"})
    before = lab.everything()
    with pytest.raises(UsageError, match="the ledger holds a sale of voucher 5"):
        lab.seed(users=2, reset=True)
    assert lab.everything() == before


def test_a_table_of_another_system_is_refused_before_any_is_created(
    lab: Lab, blank_mysql_url: str
) -> None:
    pool = mysql.engine(blank_mysql_url)
    with pool.begin() as connection:
        connection.execute(text("CREATE TABLE tb_user (id BIGINT PRIMARY KEY, mail TEXT)"))
    urls = lab.urls.model_copy(update={"mysql_url": blank_mysql_url})
    for reset in (False, True):
        with pytest.raises(UsageError, match="tb_user is another system's: it has no column"):
            seed(SeedSettings(users=1, reset=reset), urls, lab.tokens_path, Silent())
    with pool.begin() as connection:
        assert connection.execute(text("SHOW TABLES")).scalars().all() == ["tb_user"]
    pool.dispose()
    assert not lab.tokens_path.exists()


def test_a_foreign_tokens_file_is_found_before_anything_is_deleted(lab: Lab) -> None:
    lab.seed(users=2)
    lab.tokens_path.write_text("my notes\n")
    before = lab.everything()
    with pytest.raises(UsageError, match="line 1: expected 'user_id,token'"):
        lab.seed(users=2, reset=True)
    assert lab.everything() == before


def test_a_reset_that_was_interrupted_is_completed_by_another(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.seed(users=2)
    with monkeypatch.context() as patch:
        patch.setattr("flashsale.seeding.stores.delete_rows", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            lab.seed(users=2, reset=True)
    with pytest.raises(UsageError, match=r"a reset .* was interrupted; complete it with --reset"):
        lab.seed(users=2)
    assert lab.seed(users=1, seed=4, reset=True).changed
    assert lab.count("tb_user") == 1


def _interrupted(*_: object) -> int:
    raise KeyboardInterrupt


def test_every_kind_of_page_is_known_to_a_reset(lab: Lab) -> None:
    with storefront_cache(lab.urls) as cache:
        parts: Storefront = cache._parts
        kinds = parts.cache.kinds
    assert set(kinds) == set(keys.PAGE_KINDS)
