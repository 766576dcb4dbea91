"""A step: what one attempt asks of the target."""

from enum import IntEnum


class Step(IntEnum):
    """The value is the code in a plan's column; the name in lower case is the endpoint's."""

    BUY = 0  # POST /voucher-order/seckill/{voucher}: the claim
    BROWSE = 1  # GET /shop/{shop}
    SIGN = 2  # POST /user/sign: the daily sign-in, with a session that is there already

    @property
    def endpoint(self) -> str:
        """As thresholds and figures name it."""
        return self.name.lower()

    @property
    def needs_user(self) -> bool:
        """Whether only a user with a session can take it."""
        return self is not Step.BROWSE


STEP_OF = {step.endpoint: step for step in Step}
"""Each step by its endpoint."""
