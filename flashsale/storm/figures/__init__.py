"""What attempts amount to: figures, thresholds judged, the generator's own verdict. Pure."""
