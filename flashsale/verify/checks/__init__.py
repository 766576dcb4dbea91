"""The rules of a sale. Each check is a pure function of the snapshot that lists its findings."""
