"""The generator watches itself: what it cost, how late it was, whether it can be believed."""
