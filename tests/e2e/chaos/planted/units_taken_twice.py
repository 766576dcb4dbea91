"""A worker that finds an order to be a row already takes its unit all the same."""

import sys

if "worker" in sys.orig_argv:
    from collections import Counter

    from flashsale.orders import persistence
    from flashsale.storage.mysql import transaction

    sifted = persistence._sifted

    def _sifted(pool, orders, result):
        before = len(result.repeated)
        rest = sifted(pool, orders, result)
        again = Counter(order.voucher_id for order in result.repeated[before:])
        if again:
            with transaction(pool) as connection:
                persistence._take(connection, again)
        return rest

    persistence._sifted = _sifted
