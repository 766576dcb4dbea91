"""Several processes, or machines, that fire one plan."""
