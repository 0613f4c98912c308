"""The number of samples in a metric's key."""


def count(num: int) -> str:
    """The number of samples at the end of a key.

    >>> count(100000), count(2500)
    ('100k', '2500')
    """
    return f"{num // 1000}k" if num and num % 1000 == 0 else str(num)
