"""The model server behind the proxy."""


class Upstream:
    """Where relayed requests go."""
