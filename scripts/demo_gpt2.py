"""The demo GPT-2: its network, its folder in transformers' layout, its tokenizer, its losses.

Knows nothing of training (train_demo.py does that) nor of the server, with which it shares no code.
"""

import json
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional

END = "<|endoftext|>"  # token 0: between documents, and transformers' bos and eos
WINDOWS = (512, 1024)  # tokens of context at most, at which held-out loss is measured
SIZES = ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size")  # a Shape's fields, as config.json calls them
CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # transformers stores these as [in, out]
PROMPTS = ("Once upon a time", "The old house stood")


def say(text: str) -> None:
    print(text, flush=True)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a GPT-2 is; fields in the order of SIZES."""

    layers: int
    width: int
    heads: int
    positions: int
    vocab: int


class Block(nn.Module):
    """One pre-norm transformer block. x: [batch, time, width]."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        width, self.heads, self.dropout = shape.width, shape.heads, dropout
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(width, 3 * width), "c_proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        qkv = self.attn["c_attn"](self.ln_1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [batch, heads, time, head_dim]
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + functional.dropout(self.attn["c_proj"](mixed), self.dropout, self.training)
        hidden = functional.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")
        return x + functional.dropout(self.mlp["c_proj"](hidden), self.dropout, self.training)


class GPT2(nn.Module):
    """GPT-2 (Radford et al., 2019) with a tied head; parameters named as in transformers, less `transformer.`."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape, self.dropout = shape, dropout
        self.wte = nn.Embedding(shape.vocab, shape.width)
        self.wpe = nn.Embedding(shape.positions, shape.width)
        self.h = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.ln_f = nn.LayerNorm(shape.width)
        for name, parameter in self.named_parameters():
            if name.endswith(("c_attn.weight", "c_fc.weight")):
                nn.init.normal_(parameter, std=0.5 * shape.width**-0.5)
            elif name.endswith(("c_proj.weight", ".bias")):
                nn.init.zeros_(parameter)  # every block starts as the identity
            elif name.startswith(("wte", "wpe")):
                nn.init.normal_(parameter, std=0.02)

    def logits(self, ids: Tensor) -> Tensor:
        """ids [batch, time] -> logits [batch, time, vocab]."""
        x = functional.dropout(self.wte(ids) + self.wpe.weight[: ids.shape[1]], self.dropout, self.training)
        for block in self.h:
            x = block(x)
        return functional.linear(self.ln_f(x), self.wte.weight)  # [batch, time, vocab]

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean loss in nats a token; both [batch, time]."""
        return functional.cross_entropy(self.logits(ids).flatten(0, 1), targets.flatten())


def train_tokenizer(documents: list[str], vocab: int) -> Tokenizer:
    """A byte-level BPE in GPT-2's manner: any bytes in, the same bytes out; END is token 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=[END], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def tokenise(tokenizer: Tokenizer, documents: list[str], device: torch.device) -> Tensor:
    """All documents in one row of ids [tokens], each after an END."""
    rows = tokenizer.encode_batch_fast(documents, add_special_tokens=False)
    ids = np.concatenate([np.array([0, *row.ids], dtype=np.int64) for row in rows])
    return torch.from_numpy(ids).to(device)


def config(shape: Shape) -> dict[str, object]:
    sizes = dict(zip(SIZES, astuple(shape), strict=True))
    kind = {"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new"}
    ends = {"n_inner": None, "layer_norm_epsilon": 1e-05, "bos_token_id": 0, "eos_token_id": 0}
    plain = {"tie_word_embeddings": True, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    return {**kind, **sizes, **ends, **plain, "dtype": "bfloat16", "use_cache": True}


def save_model(model: GPT2, tokenizer: Tokenizer, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for name, weight in model.state_dict().items():
        stored = weight.T if name.endswith(CONV1D) else weight
        weights[f"transformer.{name}"] = stored.to("cpu", torch.bfloat16).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{role}_token": END for role in ("bos", "eos", "unk")}
    extra = {"model_max_length": model.shape.positions, "add_prefix_space": False}
    for name, content in {
        "config.json": config(model.shape),
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 0, "_from_model_config": True},
        "tokenizer_config.json": {"tokenizer_class": "GPT2TokenizerFast", **special, **extra},
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_model(folder: Path, device: torch.device) -> GPT2:
    """A folder that save_model wrote, or any GPT-2 of transformers with a tied head, as float32."""
    values: dict[str, int] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = GPT2(Shape(*(values[key] for key in SIZES)))
    stored = {k.removeprefix("transformer."): v for k, v in load_file(folder / "model.safetensors").items()}
    model.load_state_dict({k: v.T if k.endswith(CONV1D) else v for k, v in stored.items()})
    return model.to(device).eval()


def autocast(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@torch.no_grad()
def mean_loss(model: GPT2, tokens: Tensor, window: int) -> float:
    """Nats a token over consecutive windows without overlap; the context grows from 1 to `window` tokens."""
    count, total = (len(tokens) - 1) // window, 0.0
    inputs = tokens[: count * window].view(count, window)
    targets = tokens[1 : count * window + 1].view(count, window)
    with autocast(tokens.device):
        for rows in (slice(first, first + 32) for first in range(0, count, 32)):
            total += model(inputs[rows], targets[rows]).item() * len(inputs[rows])
    return total / count


@torch.no_grad()
def sample(model: GPT2, tokenizer: Tokenizer, prompt: str, device: torch.device, num_tokens: int = 160) -> str:
    generator = torch.Generator(device).manual_seed(1)
    ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids], device=device)
    for _ in range(num_tokens):
        probs = (model.logits(ids[:, -model.shape.positions :])[0, -1] / 0.8).softmax(-1)
        ids = torch.cat([ids, torch.multinomial(probs, 1, generator=generator)[None]], 1)
    return str(tokenizer.decode(ids[0].tolist(), skip_special_tokens=False))


def measure(folder: Path, held_out: list[str], device: torch.device) -> str:
    """Say and return a folder's held-out losses, by window."""
    model, tokenizer = load_model(folder, device), Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens, characters = tokenise(tokenizer, held_out, device), sum(map(len, held_out))
    losses = []
    for window in (w for w in WINDOWS if w <= model.shape.positions):
        loss = mean_loss(model, tokens, window)
        per_character = loss * len(tokens) / characters
        losses.append(f"{loss:.4f} nats a token over {window}-token windows ({per_character:.3f} a character)")
    say(f"{folder.name}: held-out loss " + ", ".join(losses))
    for prompt in PROMPTS:
        say(f"--- {sample(model, tokenizer, prompt, device)}")
    return ", ".join(losses)
