"""Partner: the other side of a conversation, as the loop sees it. Knows no kind of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ridgeline.talk.conversation import Conversation

Say = Callable[[str], None]


class Partner(Protocol):
    """continues: there are no roles; the whole text so far is continued, and saying nothing means: go on."""

    @property
    def continues(self) -> bool: ...

    def answer(self, conversation: Conversation, say: Say) -> str | None:
        """Answer the last turn, piece by piece through `say`. Oldest turns that do not fit are cut.

        Gives the reason of the end: `stop`, `length` where there was no room for more, None where nobody knows.

        Raises KeyboardInterrupt after an interrupt, when nothing runs any more, and RidgelineError for what cannot be
        answered; what was said until then counts.
        """
        ...
