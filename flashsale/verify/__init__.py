"""The judge: a snapshot of what happened, checks over it, a verdict. Imports nothing that sells."""
