"""A replica asks for no permit, neither on a new connection nor in the script: it sells on a ledger
that came back older."""

import sys

if "replica" in sys.orig_argv:
    from flashsale.seckill.claims import Claims

    begin = Claims.__init__

    def without(self, ledger_url, settings, sessions, permits=None):
        begin(self, ledger_url, settings, sessions, None)

    Claims.__init__ = without
