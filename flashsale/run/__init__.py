"""What a run leaves: its folder, attempts, histograms and summary, each written and read here."""
