"""The claim path: ids, gate, claim service, sale controls."""
