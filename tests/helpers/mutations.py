"""A file's text with random edits, for fuzzing."""

import random

TOKENS = (
    *("", "\t", "- ", ": ", "[", "]", "{", "}", "'", '"', "|", ">", "?", "#", "%", "@", "`", "\\", "~", "---\n"),
    *("&a ", "*a", "!t ", "!!python/object:x ", "<<: ", "\0", "\r", "\x85", "\u2028", "\ufeff", "🚀", "x" * 300),
    *("null", "no", "true", "2e-3", "-1", "0", "1.5", "010", "1:30", "1" * 400, "[]", "{}", "[[1]]"),
)


def mutated(rng: random.Random, text: str) -> bytes:
    """A file with one to four random edits: a value or token replaced, lines moved, bytes flipped, the end cut."""
    for _ in range(rng.randint(1, 4)):
        place, end = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        rows = text.splitlines(keepends=True) or [""]
        row = rng.randrange(len(rows))
        match rng.randrange(6):
            case 0:
                text = text[:place] + rng.choice(TOKENS) + text[place:]
            case 1:
                text = text[:place] + text[min(end, place + 6) :]
            case 2:
                key, colon, _ = rows[row].partition(":")
                text = "".join([*rows[:row], f"{key}{colon} {rng.choice(TOKENS)}\n", *rows[row + 1 :]])
            case 3:
                text = "".join([*rows[:row], rows[rng.randrange(len(rows))], *rows[row:]])
            case 4:
                words = text.split(" ")
                words[rng.randrange(len(words))] = rng.choice(TOKENS)
                text = " ".join(words)
            case _:
                text = text[:end] if rng.random() < 0.3 else text.replace("1", rng.choice(TOKENS), 1)
    content = bytearray(text.encode())
    if content and rng.random() < 0.2:
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)
