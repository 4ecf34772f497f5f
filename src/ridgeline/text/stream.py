"""TextStream: the text of one generation, as it becomes certain. Knows no request and no socket.

Two things make text uncertain: a character whose bytes have not all come, and the beginning of what may become a stop
string. The first waits in an incremental UTF-8 decoder; the second is tracked by an automaton over characters (Aho and
Corasick, 1975), whose depth is the number of characters to hold back. Nothing is decoded or searched twice.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from ridgeline.text.tokenizer import Tokenizer

_new_decoder = codecs.getincrementaldecoder("utf-8")


class StopStrings:
    """The automaton for a set of stop strings; it holds no position, so streams share one.

    A state is the longest end of the text so far that begins some stop string. follow(state, char) is the next state;
    depth[state] its length; match[state] the length of the longest stop string that ends there, or 0.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self.stops = tuple(stops)
        assert all(self.stops), "an empty stop string matches everywhere"
        self.depth, self.match, self._fallback = [0], [0], [0]
        self._next: list[dict[str, int]] = [{}]
        for stop in self.stops:
            self._insert(stop)
        self._link()
        self.firsts = frozenset(stop[0] for stop in self.stops)

    def follow(self, state: int, char: str) -> int:
        while char not in self._next[state]:
            if state == 0:
                return 0
            state = self._fallback[state]
        return self._next[state][char]

    def _insert(self, stop: str) -> None:
        state = 0
        for char in stop:
            if char not in self._next[state]:
                self._next[state][char] = len(self._next)
                self._next.append({})
                self.depth.append(self.depth[state] + 1)
                self.match.append(0)
                self._fallback.append(0)
            state = self._next[state][char]
        self.match[state] = len(stop)

    def _link(self) -> None:
        # Breadth first, so that a state's fallback is finished before the state.
        order = list(self._next[0].values())
        for state in order:
            for char, after in self._next[state].items():
                self._fallback[after] = self.follow(self._fallback[state], char)
                self.match[after] = self.match[after] or self.match[self._fallback[after]]
                order.append(after)


NO_STOPS = StopStrings(())


class TextStream:
    """push tokens, get the text that no later token can change; flush at the end.

    What push and flush return, joined, is the text of all tokens up to the first moment at which a stop string is
    complete, without that stop string; of several that are complete at the same character, the one that starts first.

    stopped: the stop string that was found, or None. num_tokens: tokens up to and including the one that completed it.
    dropped: tokens pushed after that.
    """

    __slots__ = (
        "_decoder",
        "_held",
        "_state",
        "_stops",
        "_table",
        "_texts",
        "_watching",
        "dropped",
        "num_tokens",
        "stopped",
    )

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] | StopStrings = ()) -> None:
        self.stopped: str | None = None
        self.num_tokens = 0
        self.dropped = 0
        self._table, self._texts = tokenizer.table, tokenizer.texts
        self._stops = stop if isinstance(stop, StopStrings) else StopStrings(stop) if stop else NO_STOPS
        self._watching = bool(self._stops.stops)
        self._decoder = _new_decoder("replace")
        self._state = 0
        self._held = ""

    def push(self, token_ids: Iterable[int]) -> str:
        """The text that these tokens make certain. Ids without a token add nothing."""
        text = ""
        for token_id in token_ids:
            if self.stopped is not None:
                self.dropped += 1
                continue
            self.num_tokens += 1
            try:
                piece = self._texts[token_id]
            except IndexError:  # The model's vocabulary may be padded beyond the tokenizer's.
                continue
            if piece is None or self._decoder.buffer:
                piece = self._decoder.decode(self._table[token_id])
            text += self._release(piece) if self._watching else piece
        return text

    def flush(self) -> str:
        """The rest, when no token will follow: half a character becomes U+FFFD, a begun stop string is plain text."""
        if self.stopped is not None:
            return ""
        text = self._release(self._decoder.decode(b"", True))
        held, self._held, self._state = self._held, "", 0
        return text + held

    def _release(self, piece: str) -> str:
        """Hold back what may become a stop string; cut at a stop string that is complete."""
        stops, state = self._stops, self._state
        if not state and stops.firsts.isdisjoint(piece):
            return piece
        text = self._held + piece
        for end, char in enumerate(piece, start=len(self._held) + 1):
            state = stops.follow(state, char)
            if length := stops.match[state]:
                self.stopped = text[end - length : end]
                self._held, self._state = "", 0
                return text[: end - length]
        certain = len(text) - stops.depth[state]
        self._held, self._state = text[certain:], state
        return text[:certain]
