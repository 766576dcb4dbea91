"""What can be set, by component: defaults once, each with its meaning, units in the name.

Every field is also an environment variable: `FLASHSALE_` and the prefix of its type, so
`ClaimSettings.timeout_ms` is `FLASHSALE_CLAIM_TIMEOUT_MS`. A secret may also stand in a file, which
its variable with `_FILE` at the end names.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from flashsale.errors import UsageError
from flashsale.files import read_secret
from flashsale.model import Durability

PICTURES_PATH, PICTURE_FORM_BYTES = "/upload/blog", 4_096
"""Where pictures are sent to, and how much a form may say around one."""


class Settings(BaseSettings):
    """Frozen settings whose first error is one line that names the field."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where values come from, the first that has one."""
        return init_settings, env_settings, _SecretFiles(settings_cls)

    @classmethod
    def load(cls, **given: Any) -> Self:
        """Settings from what is given, else the environment, else the defaults.

        Values of None count as not given. Raises UsageError with the field, what was found and
        what was expected.
        """
        try:
            return cls(**{name: value for name, value in given.items() if value is not None})
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]).lower()
            prefix = str(cls.model_config.get("env_prefix", ""))
            variable = f"{prefix}{field}".upper()
            if not field:  # a rule between fields
                raise UsageError(f"{prefix}…: {first['msg']}") from error
            if first["type"] == "missing":
                raise UsageError(f"{variable} is not set; export it or give its option") from error
            raise UsageError(f"{variable}: {first['msg']}, got {first['input']!r}") from error
        except SettingsError as error:  # of several values in one variable, which is no JSON
            prefix = str(cls.model_config.get("env_prefix", ""))
            raise UsageError(f"{prefix}…: {error}: {error.__cause__}; write JSON") from error


class _SecretFiles(PydanticBaseSettingsSource):
    """Secrets, each from the file that its variable names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if field.annotation is not SecretStr:
            return None, field_name, False
        prefix = str(self.config.get("env_prefix", ""))
        return read_secret(f"{prefix}{field_name}".upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        found = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in found.items() if value is not None}


class StoreSettings(Settings):
    """Where the three stores are."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_")

    ledger_url: str = Field(description="The Redis that must lose nothing.")
    cache_url: str = Field(description="The Redis that may lose everything.")
    mysql_url: str = Field(description="mysql://user:password@host:port/database, percent-encoded.")


Address: TypeAlias = Annotated[str, Field(pattern=r"^.+:[0-9]{1,5}$")]
"""host:port"""


class LedgerSettings(Settings):
    """How the ledger is laid out."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_LEDGER_")

    layout: Literal["single", "cluster"] = Field(
        "single",
        description="`cluster`: the URL is of any nodes of a Redis Cluster, as `redis+cluster://` "
        "says by itself; keys are spelled in six lanes, each one slot.",
    )
    addresses: dict[Address, Address] = Field(
        {},
        description="Where nodes of a cluster, or those that Sentinels name, are reached if not at "
        "the places that are told of them, by a tunnel or a relay, in JSON: "
        '{"10.0.0.1:7001": "127.0.0.1:4711"}; for those that sell.',
    )


class SessionSettings(Settings):
    """Sessions and their look-up."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_SESSION_")

    lifetime_minutes: int = Field(
        36_000, ge=1, le=5_256_000, description="How long an unused session lives."
    )
    longest_minutes: int = Field(
        129_600, ge=1, le=5_256_000, description="A session ends then, however much it is used."
    )
    per_user_max: int = Field(
        100, ge=1, le=10_000, description="Sessions of one user; for one more the oldest ends."
    )
    refresh_interval_s: int = Field(
        60, ge=1, le=31_536_000, description="A session's expiry moves this rarely."
    )
    batch_max: int = Field(512, ge=1, le=5_000, description="Tokens in one look-up.")
    calls_max: int = Field(1, ge=1, le=64, description="Look-ups in flight in one process.")
    queue_max: int = Field(
        16_384, ge=1, le=1_000_000, description="Requests that may wait for a look-up."
    )
    timeout_ms: int = Field(
        2_000, ge=1, le=3_600_000, description="A look-up that takes longer has failed."
    )

    @property
    def sliding_ms(self) -> tuple[int, int, int]:
        """A session's full lifetime, how rarely it is pushed out, and its longest life."""
        longest_ms = self.longest_minutes * 60_000
        return self.lifetime_minutes * 60_000, self.refresh_interval_s * 1000, longest_ms


class LoginSettings(Settings):
    """Phone codes."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_LOGIN_")

    code_lifetime_s: int = Field(120, ge=1, le=86_400, description="How long a code can be used.")
    tries_max: int = Field(
        5, ge=1, le=1_000_000, description="Wrong codes after which a code is void."
    )
    budget_window_s: int = Field(
        600, ge=1, le=2_592_000, description="The span that the budgets are for."
    )
    phone_codes_max: int = Field(
        5, ge=1, le=1_000_000, description="Codes for one phone in that span."
    )
    address_codes_max: int = Field(
        100, ge=1, le=1_000_000, description="Codes asked for by one address."
    )
    address_tries_max: int = Field(
        200, ge=1, le=1_000_000, description="Codes tried by one address."
    )
    sender: str = Field(
        "", description="package.module:function, async, that brings a code to a phone."
    )
    sender_timeout_ms: int = Field(
        5_000, ge=1, le=3_600_000, description="A slower sender has failed."
    )
    log_codes: bool = Field(False, description="Development only: print codes to the log.")


class RendezvousSettings(Settings):
    """Shards that meet before they fire: the rendezvous, and each shard."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_RENDEZVOUS_")

    secret: SecretStr = Field(
        SecretStr(""),
        description="What shards show to the rendezvous, which has everybody's sessions; unset: it "
        "listens on loopback alone.",
    )
    gather_timeout_s: float = Field(
        120.0, ge=1, le=86_400, description="How long it waits for all shards to be ready."
    )
    silence_s: float = Field(
        10.0, ge=1, le=3_600, description="A shard that says nothing for longer counts as dead."
    )
    lead_ms: int = Field(
        2_000,
        ge=1_000,
        le=600_000,
        description="From the last shard that is ready to the barrier: clocks are compared then.",
    )


class OperatorSettings(Settings):
    """Who may create and change shops and vouchers."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_OPERATOR_")

    token: SecretStr = Field(
        SecretStr(""), description="What an operator sends as `authorization`; unset: nobody may."
    )


class ClaimSettings(Settings):
    """The claim path of one replica."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_CLAIM_")

    timeout_ms: int = Field(
        2_000, ge=10, le=3_600_000, description="From leaving the gate to the deadline."
    )
    queue_timeout_ms: int = Field(
        2_000, ge=1, le=3_600_000, description="A claim that waited longer is shed."
    )
    batch_max: int = Field(256, ge=1, le=2_000, description="Claims that leave together.")
    calls_max: int = Field(1, ge=1, le=64, description="Batches in flight in one process.")
    queue_max: int = Field(
        16_384, ge=1, le=1_000_000, description="Claims that may wait; one more is shed."
    )
    replay_calls_max: int = Field(4, ge=1, le=64, description="Replays in flight in one process.")
    user_claims_max: int = Field(
        1_000,
        ge=1,
        le=1_000_000_000,
        description="Claims of one user that one process takes in a window; one more is 429.",
    )
    user_window_s: float = Field(10.0, ge=0.1, le=86_400, description="That window.")
    id_block: int = Field(4_096, ge=1, le=1_000_000, description="Order ids leased at a time.")
    clock_interval_s: float = Field(
        10.0, ge=0.001, le=86_400, description="How often Redis' clock is read."
    )
    confirm_replicas: int = Field(
        0,
        ge=0,
        le=16,
        description="Replicas of the ledger that must have an order before anybody is told of it, "
        "and before a worker makes it a row; 0: none is asked.",
    )
    confirm_timeout_ms: int = Field(
        500,
        ge=1,
        le=3_600_000,
        description="How long a batch waits for them; what they have not confirmed is unknown.",
    )
    confirm_on_disk: bool = Field(
        False, description="They must have it on their disks, too: WAITAOF, from Redis 7.2 on."
    )

    @model_validator(mode="after")
    def _confirmed_in_time(self) -> Self:
        if self.confirm_replicas and self.confirm_timeout_ms >= self.timeout_ms:
            raise ValueError("confirm_timeout_ms must be shorter than timeout_ms")
        return self


class ReplicaSettings(Settings):
    """One HTTP process."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_REPLICA_")

    host: str = Field("127.0.0.1", description="The address to listen on.")
    backlog: int = Field(
        4_096, ge=1, le=65_535, description="Connections that may wait to be accepted."
    )
    connections_max: int = Field(
        16_384,
        ge=1,
        le=1_000_000,
        description="Connections at a time, within the descriptors; one more is answered 503.",
    )
    body_bytes_max: int = Field(
        65_536, ge=1, le=1_073_741_824, description="A larger body is answered 413."
    )
    picture_bytes_max: int = Field(
        1_048_576,
        ge=1_024,
        le=67_108_864,
        description="A larger picture is answered 413; nginx is told the same by `serve`.",
    )
    family_answers: bool = Field(
        False,
        description="Answer as the family's servers do where ours are stricter: what is malformed "
        "or not there is 200, and an order's id is text.",
    )
    target_bytes_max: int = Field(
        8_192, ge=64, le=16_777_216, description="A longer target is answered 414."
    )
    header_bytes_max: int = Field(
        16_384, ge=256, le=16_777_216, description="Larger headers are answered 431."
    )
    headers_max: int = Field(
        100, ge=1, le=10_000, description="More headers than these are answered 431."
    )
    pipeline_max: int = Field(
        16,
        ge=1,
        le=1_000,
        description="Requests that may wait on a connection before it is read no more.",
    )
    write_buffer_bytes_max: int = Field(
        65_536,
        ge=1,
        le=1_073_741_824,
        description="Unread answers on a connection before it is served no more.",
    )
    header_timeout_ms: int = Field(
        10_000,
        ge=1,
        le=3_600_000,
        description="How long a request's head may take from its first byte.",
    )
    body_timeout_ms: int = Field(
        15_000,
        ge=1,
        le=3_600_000,
        description="How long a request's body may stand still before it is whole.",
    )
    send_timeout_ms: int = Field(
        30_000,
        ge=1,
        le=3_600_000,
        description="How long a client may leave its answers unread.",
    )
    idle_timeout_ms: int = Field(
        75_000,
        ge=1,
        le=3_600_000,
        description="How long a connection may be idle: longer than nginx keeps it, or nginx sends "
        "a claim into a connection that is just being closed.",
    )
    drain_timeout_s: float = Field(
        10.0, ge=0, le=3_600, description="How long SIGTERM waits for requests."
    )
    niceness: int = Field(3, ge=0, le=19, description="How far it gives way to stores and workers.")
    mysql_threads_max: int = Field(
        16, ge=1, le=50, description="MySQL transactions of orders and users in flight."
    )
    mysql_page_threads_max: int = Field(
        16, ge=1, le=50, description="MySQL transactions of pages in flight, beside those."
    )
    trusted_proxies: str = Field(
        "",
        description="Networks, by comma, that may name a client's address; loopback always may.",
    )

    @property
    def larger_bodies(self) -> Mapping[str, int]:
        """The paths whose body may be larger than others, each with its bound: the picture, and
        the form around it."""
        return {PICTURES_PATH: self.picture_bytes_max + PICTURE_FORM_BYTES}


class WorkerSettings(Settings):
    """One order worker."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_WORKER_")

    host: str = Field("127.0.0.1", description="Where /healthz and /metrics listen.")
    batch_rows_max: int = Field(500, ge=1, le=5_000, description="Orders in one transaction.")
    block_ms: int = Field(
        2_000, ge=1, le=3_600_000, description="How long a read waits for new orders."
    )
    linger_ms: int = Field(80, ge=0, le=1_000, description="Rest after a small batch.")
    lock_lease_ms: int = Field(
        30_000, ge=100, le=3_600_000, description="A user's lock, unless renewed."
    )
    lock_renew_ms: int = Field(
        10_000, ge=10, le=3_600_000, description="How often the watchdog renews."
    )
    durability: Durability = Field(
        Durability.ALWAYS, description="What was chosen for the ledger: `serve` says so."
    )
    claim_idle_ms: int = Field(
        35_000, ge=1, le=3_600_000, description="Another's entry idle longer is ours."
    )
    retry_base_ms: int = Field(
        100, ge=1, le=3_600_000, description="First wait after a failure; it doubles."
    )
    retry_max_ms: int = Field(
        5_000, ge=1, le=3_600_000, description="Longest wait after a failure."
    )
    trim_keep_entries: int = Field(
        100_000, ge=0, le=1_000_000_000, description="Entries that trimming leaves."
    )
    trim_interval_s: float = Field(
        10.0, ge=0.001, le=86_400, description="How often the stream is trimmed."
    )
    books_interval_s: float = Field(
        1.0, ge=0.01, le=3_600, description="How often ledger and MySQL are compared."
    )


class CacheSettings(Settings):
    """The cached reads of one process."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_CACHE_")

    timeout_ms: int = Field(
        1_000, ge=1, le=3_600_000, description="A longer call to the cache has failed."
    )
    batch_max: int = Field(256, ge=1, le=2_000, description="Reads that leave together.")
    calls_max: int = Field(1, ge=1, le=64, description="Batches of reads in flight.")
    queue_max: int = Field(
        16_384, ge=1, le=1_000_000, description="Reads that may wait; one more is refused."
    )
    jitter: float = Field(0.1, ge=0, lt=1, description="A lifetime varies by this share of it.")
    null_ttl_s: int = Field(
        120, ge=1, le=31_536_000, description='How long "there is none" is remembered.'
    )
    lease_ms: int = Field(
        10_000, ge=10, le=3_600_000, description="How long a loader may hold a thing's lock."
    )
    load_timeout_ms: int = Field(
        5_000, ge=1, le=3_600_000, description="A load that takes longer has failed."
    )
    loads_max: int = Field(16, ge=1, le=1_000, description="Loads at a time.")
    loads_waiting_max: int = Field(
        4_096, ge=0, le=1_000_000, description="Loads that may wait for their turn."
    )
    loads_wait_ms: int = Field(
        3_000, ge=0, le=3_600_000, description="How long a load waits for its turn."
    )
    retry_ms: int = Field(
        50, ge=1, le=3_600_000, description="How often a reader asks for another's load."
    )
    wait_ms: int = Field(3_000, ge=0, le=3_600_000, description="After that it loads by itself.")
    rebuilds_max: int = Field(
        1_024, ge=1, le=100_000, description="Rebuilds behind stale answers at a time."
    )
    rebuild_pause_ms: int = Field(
        1_000, ge=0, le=3_600_000, description="Rest of a key whose rebuild failed."
    )
    probe_ms: int = Field(
        250, ge=1, le=3_600_000, description="How often a cache that failed is tried again."
    )
    owed_max: int = Field(
        10_000, ge=1, le=1_000_000, description="Deletes owed to a cache that is away."
    )
    keep_interval_s: float = Field(
        5.0, ge=0.001, le=86_400, description="How often owed deletes are retried."
    )

    @model_validator(mode="after")
    def _lease_outlives_load(self) -> Self:
        if self.lease_ms <= self.load_timeout_ms:
            raise ValueError("lease_ms must be longer than load_timeout_ms")
        return self


class BloomSettings(Settings):
    """The size of the filters, and how they are rebuilt."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_BLOOM_")

    false_positives: float = Field(0.01, ge=1e-6, lt=0.5, description="Share at full capacity.")
    headroom: float = Field(
        1.5, ge=1, le=100, description="Capacity, as a multiple of the seeded count."
    )
    capacity_min: int = Field(
        10_000, ge=1, le=100_000_000, description="No filter is made for fewer ids."
    )
    module: bool = Field(True, description="Use the server's BF.* commands where it has them.")
    settle_ms: int = Field(
        2_000, ge=0, le=3_600_000, description="Longest transaction that adds an id."
    )
    chunk_bytes: int = Field(
        262_144, ge=1_024, le=67_108_864, description="Bitmap sent in one call."
    )


class LockSettings(Settings):
    """The general lock."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_LOCK_")

    lease_ms: int = Field(
        30_000, ge=100, le=3_600_000, description="A lock's life, unless renewed."
    )
    renew_ms: int = Field(10_000, ge=10, le=3_600_000, description="How often the watchdog renews.")
    wait_ms: int = Field(10_000, ge=0, le=3_600_000, description="How long to wait for a lock.")
    poll_ms: int = Field(
        1_000, ge=10, le=3_600_000, description="How often a waiter looks without being told."
    )
    timeout_ms: int = Field(
        2_000, ge=1, le=3_600_000, description="A call that takes longer has failed."
    )
    waiters_max: int = Field(64, ge=1, le=1_000, description="Locks that one process may wait for.")

    @model_validator(mode="after")
    def _renewal_has_two_tries(self) -> Self:
        if self.lease_ms < 2 * self.renew_ms:
            raise ValueError("lease_ms must be at least twice renew_ms")
        return self


class LifecycleSettings(Settings):
    """Orders after they are rows, and the sweeper that looks after them in every worker."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_ORDER_")

    unpaid_timeout_s: int = Field(
        1_800, ge=1, le=315_360_000, description="An order unpaid for longer is void."
    )
    sweep_interval_s: float = Field(
        5.0, ge=0.001, le=86_400, description="How often the sweeper looks."
    )
    sweep_rows_max: int = Field(500, ge=1, le=5_000, description="Orders in one of its steps.")
    rescan_interval_s: float = Field(
        600.0,
        ge=0.001,
        le=31_536_000,
        description="How often it looks again at orders it has passed.",
    )
    pause_unbalanced: bool = Field(
        False, description="Pause a sale whose units do not add up in the ledger."
    )


class CatalogSettings(Settings):
    """Shops, vouchers and blogs, and how long the cache may answer for MySQL."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_CATALOG_")

    hot_shops: int = Field(8, ge=0, le=10_000, description="The most sold shops, kept warm.")
    shop_ttl_s: float = Field(
        1_800, ge=0.001, le=31_536_000, description="How long a shop's or a blog's entry lives."
    )
    list_ttl_s: float = Field(
        30, ge=0.001, le=31_536_000, description="How far a list may lag behind MySQL."
    )
    likes_ttl_s: float = Field(
        600, ge=0.001, le=31_536_000, description="How long a user's likes are kept."
    )
    follows_ttl_s: float = Field(
        600,
        ge=0.001,
        le=31_536_000,
        description="How long whom a user follows, and a feed, are kept.",
    )
    follows_max: int = Field(
        1_000, ge=1, le=5_000, description="Whom one user may follow; one more is refused."
    )
    blogs_max: int = Field(
        1_000, ge=1, le=1_000_000, description="Blogs of one user; one more is refused."
    )
    geo_ttl_s: int = Field(
        3_600, ge=1, le=31_536_000, description="How long a type's geo index lives."
    )
    geo_lease_ms: int = Field(
        10_000, ge=1, le=3_600_000, description="How long one may take to be built."
    )
    names_max: int = Field(
        200_000,
        ge=0,
        le=10_000_000,
        description="Shops whose names each replica keeps in mind for searches; with more, MySQL "
        "looks at every name.",
    )
    radius_m: int = Field(20_000, ge=1, le=20_100_000, description="How far `near` reaches.")
    load_delay_ms: int = Field(
        0, ge=0, le=3_600_000, description="Development only: shops load this slowly."
    )
    warm_check_s: float = Field(
        5, ge=0.001, le=86_400, description="How often the cache is seen to be warm."
    )


class PictureSettings(Settings):
    """Pictures that users send."""

    model_config = SettingsConfigDict(env_prefix="FLASHSALE_PICTURES_")

    folder: str = Field(
        "", description="Where they are kept, for all replicas; unset: none is taken."
    )
    per_user_max: int = Field(
        64, ge=1, le=100_000, description="Pictures of one user; one more is refused."
    )
    free_bytes_min: int = Field(
        536_870_912,
        ge=0,
        le=10_995_116_277_760,
        description="None is taken that leaves the disk less.",
    )


_COMPONENTS: tuple[type[Settings], ...] = (
    LedgerSettings,
    SessionSettings,
    LoginSettings,
    RendezvousSettings,
    OperatorSettings,
    ClaimSettings,
    ReplicaSettings,
    WorkerSettings,
    CacheSettings,
    BloomSettings,
    LockSettings,
    LifecycleSettings,
    CatalogSettings,
    PictureSettings,
)


def check_environment() -> None:
    """See that the environment says nothing of any component that its process would refuse.

    Raises UsageError for the first that it would; the stores' URLs are not looked at.
    """
    for component in _COMPONENTS:
        component.load()
