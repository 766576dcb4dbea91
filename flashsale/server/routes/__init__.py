"""The routes, by area: what each path does, and with which parts."""
