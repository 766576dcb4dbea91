"""What several contract tests stand on: a sale in a ledger, a relay that cuts, an ASGI caller."""
