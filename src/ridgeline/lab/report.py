"""Report: a run file with its report in it as the page, one file that needs no network. Knows no measurement."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from plotly.offline import get_plotlyjs

from ridgeline.core.errors import ConfigError
from ridgeline.core.saved import saved_page


def page(run: Mapping[str, Any]) -> str:
    """run: as core.report.reported makes it. Raises ConfigError for numbers that JSON does not have."""
    title: str = run["report"]["title"]
    try:
        data = json.dumps(run, allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"{title}: the run has numbers that are not finite, so no page can hold it") from error
    return saved_page(data, f"Ridgeline: {title[:1].lower() + title[1:]}", get_plotlyjs())
