"""Storming and judging without a command line: what `flashsale storm`, `verify`, `report merge` and
`rehearse` decide, as calls with one request type each. Whoever calls brings a `Teller`.
"""
