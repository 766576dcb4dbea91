"""What is read from MySQL, kept in the cache Redis: entries by strategy, and Bloom filters."""
