"""Addresses of servers: what is none, and what must not be written into run files."""

from __future__ import annotations

import pytest

from ridgeline.core.address import check_address
from ridgeline.core.errors import ConfigError


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "http://[", "http://x:port", "ftp://x", "", "http://:80"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"--url .*: is no address"):
        check_address("--url", url)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="OPENAI_API_KEY") as caught:
        check_address("--url", "http://me:secret@localhost:8000")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:8000", "https://[::1]/v1", "http://x"])
def test_addresses_are_taken(url: str) -> None:
    check_address("--url", url)
