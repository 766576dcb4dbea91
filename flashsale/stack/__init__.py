"""Private Redis, MariaDB and nginx, and the supervisor that keeps them up."""
