"""A secret that no text may show, in whole or in part."""

from __future__ import annotations

SECRET = "Zq7Kx9Wv3Tb5Ym2N"
WHERE = {"end": "{0}{1}", "start": "{1}{0}", "middle": "{2}{1}{3}"}


def spoiled(bad: str, where: str = "end", secret: str = SECRET) -> str:
    return WHERE[where].format(secret, bad, secret[:8], secret[8:])


def assert_untold(*texts: str, secret: str = SECRET) -> None:
    """Find no six characters in a row of it."""
    for text in texts:
        for start in range(len(secret) - 5):
            assert secret[start : start + 6] not in text, text
