"""What a config's quantization_config says: a form that Ridgeline saved, or somebody else's, which is refused by name.

Knows names and the way out of each; reads no weights. docs/quantisation.md describes the saved form.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ridgeline.core.errors import ModelError
from ridgeline.core.folder import CONFIG
from ridgeline.core.jsonfile import Fields, read_object

FIELD, METHOD, VERSION = "quantization_config", "ridgeline", 1
# Of a saved scheme: bits of a code, and how many inputs share a multiplier (None: there are none).
SAVED: dict[str, tuple[int, int | None]] = {"int8": (8, None), "int4": (4, 16)}

ORIGINAL = "take the model it was made from, and `ridgeline quantize` for weights of 4 or 8 bits"
# transformers' names of methods, and what people call them.
_FOREIGN = {
    "gptq": "GPTQ (AutoGPTQ, GPTQModel)",
    "awq": "AWQ (AutoAWQ)",
    "auto-round": "AutoRound",
    "intel/auto-round": "AutoRound",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors (llm-compressor)",
    "fp8": "8-bit floats in blocks",
    "fbgemm_fp8": "FBGEMM's 8-bit floats",
    "hqq": "HQQ",
    "aqlm": "AQLM",
    "eetq": "EETQ",
    "higgs": "HIGGS",
    "mxfp4": "MXFP4",
    "quanto": "Quanto",
    "quark": "Quark",
    "spqr": "SpQR",
    "torchao": "torchao",
    "vptq": "VPTQ",
    "bitnet": "BitNet",
}


def described(scheme: str) -> dict[str, Any]:
    """What a saved model's config.json says under FIELD."""
    bits, group = SAVED[scheme]
    return {"quant_method": METHOD, "version": VERSION, "scheme": scheme, "bits": bits, "group_size": group}


def saved_scheme(folder: Path) -> str | None:
    """The scheme in whose form the folder's weights are saved, a name in SAVED; None: they are plain numbers.

    Raises ModelError for every other quantization_config.
    """
    fields = Fields(folder / CONFIG, read_object(folder / CONFIG))
    said = fields.values.get(FIELD)
    if said is None:
        return None
    if not isinstance(said, dict):
        raise fields.refuse(FIELD, "but must be an object; correct the file")
    inner = Fields(fields.path, said)
    method = said.get("quant_method")
    if method is None and (said.get("load_in_4bit") or said.get("load_in_8bit")):
        method = "bitsandbytes"  # what transformers wrote before it had a name for it
    if method != METHOD:
        raise ModelError(f"{fields.path}: {FIELD}: {foreign(method)}")
    return _ours(inner)


def _ours(fields: Fields) -> str:
    version = fields.integer("version", 1, 2**31)
    if version != VERSION:
        raise fields.refuse("version", f"but this Ridgeline reads {VERSION}; take the Ridgeline that saved the model")
    scheme = fields.text("scheme", default="")
    if scheme not in SAVED:
        raise fields.refuse("scheme", f"but must be one of {', '.join(SAVED)}; save the model again")
    bits, group = SAVED[scheme]
    for name, value in (("bits", bits), ("group_size", group)):
        if fields.values.get(name) != value:
            raise fields.refuse(name, f"but is {value} in {scheme}, version {VERSION}; save the model again")
    return scheme


def foreign(method: object) -> str:
    """A sentence about weights that somebody else rounded. method: as transformers names it."""
    name = _FOREIGN.get(method, repr(method)[:80]) if isinstance(method, str) else "a method without a name"
    return (
        f"the weights are quantised by {name}, which Ridgeline does not read, because they would have to be rounded a "
        f"second time to fit its own integers; {ORIGINAL}"
    )
