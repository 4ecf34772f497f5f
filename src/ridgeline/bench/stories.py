"""Stories: the built-in prompts of the classic client, and its loads made of them. Knows no HTTP and no clock."""

from __future__ import annotations

import random

from ridgeline.bench.records import Shape

PROMPTS = (
    "Once upon a time",
    "The lighthouse keeper wrote in his book every evening that",
    "It was raining.",
    "In the middle of the market there stood a man who sold nothing but clocks, and every one of them showed",
    "Dear sister,",
    "The ship had been at sea for forty days when the youngest of the sailors, who had not spoken since they left the "
    "harbour, climbed down from the mast, walked up to the captain and said, quite calmly, that he had seen",
    "She opened the door and",
    "There are three kinds of people in a village: those who know everything, those who believe everything, and",
    "The doctor looked at his watch, then at the patient, then at the rain on the window. He had never liked this "
    "house. It was too large for one person and too quiet for two, and he could not have said why",
    "Winter came early that year",
    "My grandfather used to tell the story of how he walked across the mountains with a goat, two loaves of bread and "
    "a letter that he could not read. On the first evening he met a stranger at the well. On the second evening the "
    "stranger was there again, in another valley, with the same hat and the same smile, and asked him for",
    "Nobody knew",
    "The train was late, as it always was on Sundays, and so the two of them sat on the bench and talked about",
    "First you take the flour, then the eggs, and then, if nobody is looking,",
    "At the end of the street, where the lamps stop and the fields begin, there was a small shop with a blue sign. "
    "The sign had no letters on it. People went in with empty hands and came out",
    "He said that he would be back before noon, but the road was long and the horse was old, and so",
)


def varied(count: int, max_tokens: int, seed: int, prompt: str | None = None) -> list[Shape]:
    """`count` requests of different lengths, so that some end early in their batch.

    Prompts come in a shuffled order, each once before any comes twice; new tokens are uniform between half of
    max_tokens and one and a half times it.
    """
    rng = random.Random(seed)
    order = [prompt] if prompt is not None else rng.sample(PROMPTS, len(PROMPTS))
    low, high = max(1, max_tokens - max_tokens // 2), max_tokens + max_tokens // 2
    return [Shape(order[i % len(order)], rng.randint(low, high)) for i in range(count)]


def equal(max_tokens: int, seed: int, prompt: str | None = None) -> Shape:
    """The one shape of a benchmark, so that its levels differ in nothing but the requests in flight."""
    return Shape(prompt if prompt is not None else random.Random(seed).choice(PROMPTS), max_tokens)
