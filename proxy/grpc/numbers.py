"""Numbers in header fields, by the rules of ``absl::SimpleAtoi``, which Envoy reads them with."""

from __future__ import annotations

_MOST_DIGITS = 20
_BLANKS = b" \t\n\v\f\r"


def integer(value: bytes) -> int | None:
    """A decimal number, which may have a sign and blanks around it; ``None``: it is none, or has over 64 bits."""
    digits = value.strip(_BLANKS)
    negative = digits[:1] == b"-"
    if negative or digits[:1] == b"+":
        digits = digits[1:]
    # Python would take underscores as well, and any number of leading zeros at the cost of reading them.
    if not digits.isdigit():
        return None
    digits = digits.lstrip(b"0")
    if len(digits) > _MOST_DIGITS:
        return None
    number = int(digits or b"0")
    if number >= 1 << 64:
        return None
    return -number if negative else number


def unsigned(value: bytes) -> int | None:
    """The same, but ``None`` for what has a minus sign."""
    number = integer(value)
    return None if number is None or number < 0 or value.strip(_BLANKS)[:1] == b"-" else number
