"""What a record amounts to: histograms, figures, the sale's own, and what is demanded of them."""
