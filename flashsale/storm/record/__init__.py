"""What a storm writes down: the ledger in memory, attempts.jsonl, the run folder."""
