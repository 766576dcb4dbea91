"""Run a flash sale, storm it, and prove that nothing was oversold, sold twice or lost."""

__version__ = "0.1.0"
