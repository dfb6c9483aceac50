"""The checks that validation is written in: each appends "field value limit; mend" to `faults`.

`path` is the field's dotted path in the experiment ("training.batch_size"), value the field's
value. All compare so that NaN, which textprotos can hold, fails.
"""

import math

from sp_transformer.config.suggestions import unknown_name


def number(value) -> str:
    """A number as a textproto would hold it, without float32 noise."""
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def positive(faults, path, value, hint=""):
    if not (value > 0 and math.isfinite(value)):
        limit = "above 0" if math.isfinite(value) else "finite"
        mend = f" ({hint})" if hint else ""
        faults.append(f"{path} {number(value)} is not {limit}; set it to a positive number{mend}")


def at_least(faults, path, value, limit):
    if value < limit:
        faults.append(f"{path} {number(value)} is below {limit}; set it to {limit} or more")


def not_negative(faults, path, value, zero_means=""):
    if not (value >= 0 and math.isfinite(value)):
        limit = "is below 0" if math.isfinite(value) else "is not finite"
        zero = f" or to 0 ({zero_means})" if zero_means else " or to 0"
        faults.append(f"{path} {number(value)} {limit}; set it to a positive number{zero}")


def in_range(faults, path, value, low, high, open_low=False, open_high=False):
    """value within low..high; an open end is excluded itself."""
    above = value > low if open_low else value >= low
    below = value < high if open_high else value <= high
    if not (above and below):
        interval = (
            f"{'(' if open_low else '['}{number(low)}, {number(high)}{')' if open_high else ']'}"
        )
        faults.append(
            f"{path} {number(value)} lies outside {interval}; set it to a value between "
            f"{number(low)} and {number(high)}"
        )


def one_of(faults, path, value, known):
    if value not in known:
        faults.append(unknown_name(path, value, known))


def multiple_of(faults, path, value, base, reason):
    """value a multiple of base, both positive."""
    if value % base:
        faults.append(
            f"{path} {value} is not a multiple of {base} ({reason}); "
            f"{nearest_multiples(value, base)}"
        )


def nearest_multiples(value: int, base: int) -> str:
    """The mend for a value that is not a multiple: those below and above, zero left out."""
    below = value // base * base
    if below <= 0:
        return f"the nearest that fits is {base}"
    return f"the nearest that fit are {below} and {below + base}"


def divides(faults, path, value, whole_path, whole):
    """value divides whole, both positive."""
    if whole % value:
        small = [d for d in range(1, math.isqrt(whole) + 1) if whole % d == 0]
        divisors = {*small, *(whole // d for d in small)}
        below, above = (d for d in divisors if d < value), [d for d in divisors if d > value]
        nearest = [max(below), *([min(above)] if above else [])]
        fitting = f"are {nearest[0]} and {nearest[1]}" if above else f"is {nearest[0]}"
        faults.append(
            f"{path} {value} does not divide {whole_path} {whole}; the nearest that "
            f"{'do' if above else 'does'} {fitting}"
        )
