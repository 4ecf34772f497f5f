"""Who runs next, and the one writer of request state. Knows integers and arrays; knows no tensor, text or socket."""
