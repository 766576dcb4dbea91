"""The charts of a run, as plotly draws them."""
