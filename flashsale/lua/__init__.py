"""The scripts that run inside Redis, and the one loader that types them."""
