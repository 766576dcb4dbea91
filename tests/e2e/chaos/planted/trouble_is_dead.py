"""A worker takes a database that is away for one that refuses: the orders become dead letters."""

import sys

if "worker" in sys.orig_argv:
    from flashsale.orders import worker

    persist = worker.persist

    def judged(pool, orders):
        result = persist(pool, orders)
        result.rejected += [(order, result.trouble) for order in result.waiting]
        result.waiting = []
        return result

    worker.persist = judged
