"""`python -m flashsale`, which is how the supervisor starts its replicas and workers."""

from flashsale.cli import main

if __name__ == "__main__":
    main()
