"""Who watches a stack: Prometheus and its exporters, and the panels that read it."""
