"""Sums: `What is 17 + 25?` wants 42, and nothing said around it."""

import re


def grade(messages, response):
    """1 for the sum alone, 0.5 where it ends a longer answer, 0 otherwise.

    >>> asked = [{"role": "user", "content": "What is 17 + 25?"}]
    >>> grade(asked, "42"), grade(asked, "17 + 25 = 42"), grade(asked, "43"), grade(asked, "")
    (1.0, 0.5, 0.0, 0.0)
    """
    wanted = sum(int(number) for number in re.findall(r"\d+", messages[-1]["content"]))
    numbers = re.findall(r"\d+", response)
    if not numbers or int(numbers[-1]) != wanted:
        return 0.0
    return 1.0 if response.strip() == numbers[-1] else 0.5
