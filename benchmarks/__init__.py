"""What the parts cost, each figure beside its limit and its peers: `python -m benchmarks`."""
