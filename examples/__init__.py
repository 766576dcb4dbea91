"""Small shops of other kinds, to be stormed and judged: each with the file that describes it."""
