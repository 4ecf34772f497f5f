"""Manners: how clients are treated, chosen once from the configuration. Knows no request and no route."""

from __future__ import annotations

from dataclasses import dataclass, field

from ridgeline.core.config import Config
from ridgeline.core.errors import ConfigError
from ridgeline.server.admission import Admission
from ridgeline.server.auth import Keys
from ridgeline.server.gate import Doors
from ridgeline.server.limits import Limits
from ridgeline.server.metrics import Metrics
from ridgeline.server.recent import Recent
from ridgeline.server.requests import Requests
from ridgeline.server.visit import Books


@dataclass(frozen=True, slots=True)
class Manners:
    """How clients are treated: what may wait, who may come in, what is written down."""

    limits: Limits = field(default_factory=Limits)
    keys: Keys = field(default_factory=Keys)
    admins: Keys = field(default_factory=Keys)
    doors: Doors = field(default_factory=Doors)
    log_prompts: bool = False

    @staticmethod
    def of(config: Config, keys: Keys, admins: Keys) -> Manners:
        """Raises ConfigError for options that make sense only with keys, and for a key that is of both kinds."""
        keys.check_apart(admins)
        options = config.server
        if not keys and config.clients.max_concurrent_per_key is not None:
            raise ConfigError("--max-concurrent-per-key: there are no API keys; give some with --api-key-file")
        doors = Doors(open_metrics=options.open_metrics, open_page=options.open_page)
        return Manners(Limits.of(config), keys, admins, doors, options.log_prompts)

    def books(self) -> Books:
        """New ones, for one application."""
        admission = Admission(self.limits)
        metrics = Metrics(admission, self.limits)
        return Books(admission, metrics, Requests(), Recent(), self.log_prompts, self.limits.request_timeout_s)
