"""The distributed lock, and (with the storefront) the cache strategies over it."""
