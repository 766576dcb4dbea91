"""A reply that was lost is taken for a claim that was not made: shed, where it may have sold."""

import sys

if "replica" in sys.orig_argv:
    from flashsale.seckill.batch import SHED
    from flashsale.seckill.claims import Settlement

    def start(self, batch):
        return [SHED] * len(batch.order_ids)

    Settlement.start = start
