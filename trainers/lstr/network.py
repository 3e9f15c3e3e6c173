"""LSTR: a long memory that learned queries compress in two steps, and a work memory that looks at the result.

    long rows (N)  -> head -> + position 0..N-1   -> encoder modules: queries 512 -> 16 -> 32 tokens ---.
    work rows (W)  -> head -> + position N..N+W-1 -> decoder, causal, looking at those tokens <---------' -> class scores (W)

The older network of SBP's end-to-end code can have an age memory before the long one: A rows -> head -> GRU -> one more token
for the decoder, before the others. Its rows have no position of their own, but those of the others begin at A.

Source: Xu et al., Long Short-Term Transformer for Online Action Detection, NeurIPS 2021, arXiv 2107.03377. Names and order of
the parameters, and every draw of a seeded initialisation, are those of the authors' code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from trainers.lstr.attention import causal_mask
from trainers.lstr.layers import Activation, DecoderLayer, DecoderStack, EncoderLayer, EncoderStack

Modality = Literal["twostream", "visual", "motion"]

SELF_ATTENTION = -1
"""Number of queries of an encoder module that has none: its tokens look at each other."""


class Module(NamedTuple):
    """One encoder or decoder module; `num_queries` is SELF_ATTENTION for one without queries, and unused in a decoder."""

    num_queries: int
    num_layers: int
    final_norm: bool


PUBLISHED_ENCODER = (Module(16, 1, True), Module(32, 2, True))
PUBLISHED_DECODER = Module(-1, 2, True)


@dataclass(frozen=True)
class LstrSpec:
    """What a network is. Sizes of a row in numbers; `num_long` N, `num_work` W and `num_ages` A in rows; defaults are the published ones.

    `width` is that of the heads' output: 0 keeps the size of the input, None leaves the heads out. `mask_tokens` keeps the
    padding of the long memory masked where the published code forgets it: with self-attention first, or no encoder.
    """

    num_classes: int
    visual_size: int = 2048
    motion_size: int = 1024
    modality: Modality = "twostream"
    width: int | None = 1024
    num_long: int = 512
    num_work: int = 32
    encoder: tuple[Module, ...] = PUBLISHED_ENCODER
    decoder: Module = PUBLISHED_DECODER
    num_heads: int = 16
    hidden: int = 1024
    dropout: float = 0.2
    activation: Activation = "relu"
    max_positions: int = 5000
    mask_tokens: bool = False
    num_ages: int = 0

    @property
    def num_memory(self) -> int:
        """Rows before the work memory, A + N."""
        return self.num_ages + self.num_long

    @property
    def row_size(self) -> int:
        """Numbers of one row that the modality uses."""
        sizes = {"twostream": self.visual_size + self.motion_size, "visual": self.visual_size}
        return sizes.get(self.modality, self.motion_size)

    @property
    def dim(self) -> int:
        """Width D of all tokens."""
        return self.width or self.row_size

    def check(self) -> None:
        """Raises: ValueError, saying which value cannot be."""
        if self.num_work < 1 or self.num_long < 0:
            raise ValueError(f"num_work is {self.num_work} and num_long {self.num_long}; they are at least 1 and 0")
        if self.num_ages < 0 or (self.num_ages and not self.num_long):
            raise ValueError(
                f"num_ages is {self.num_ages}; it is 0, or more where there is a long memory that it comes before"
            )
        if self.num_memory + self.num_work > self.max_positions:
            raise ValueError(
                f"{self.num_memory} + {self.num_work} rows need a max_positions of that many; it is {self.max_positions}"
            )
        if self.dim % 2 or self.dim < 2:
            raise ValueError(f"the width is {self.dim}; sines and cosines need an even one")
        for each in self.encoder:
            if each.num_queries == 0 or each.num_queries < SELF_ATTENTION:
                raise ValueError(f"an encoder module has {each.num_queries} queries; it has 1 or more, or -1 for none")


class FeatureHead(nn.Module):
    """A row of the visual and the motion stream to D numbers: joined, projected, rectified."""

    def __init__(self, spec: LstrSpec) -> None:
        super().__init__()
        self.modality = spec.modality
        self.input_linear = (
            nn.Identity() if spec.width is None else nn.Sequential(nn.Linear(spec.row_size, spec.dim), nn.ReLU())
        )

    def forward(self, visual: Tensor | None, motion: Tensor | None) -> Tensor:
        """(B, T, D) from (B, T, visual_size) and (B, T, motion_size); the stream that is not used may be None.

        Raises: ValueError when one that is used is missing.
        """
        streams = {"twostream": (visual, motion), "visual": (visual,), "motion": (motion,)}[self.modality]
        rows = [stream for stream in streams if stream is not None]
        if len(rows) < len(streams):
            raise ValueError(f"the modality is {self.modality}, and a stream that it uses was not given")
        return self.input_linear(rows[0] if len(rows) == 1 else torch.cat(rows, -1))


class PositionalEncoding(nn.Module):
    """Sines and cosines of the slot number, added to the tokens. The table is part of the state dict, as published."""

    pe: Tensor

    def __init__(self, dim: int, dropout: float, max_positions: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        slots = torch.arange(max_positions, dtype=torch.float32)[:, None]
        rates = torch.exp(torch.arange(0, dim, 2).float() * (-math.log(10000.0) / dim))
        table = torch.zeros(max_positions, dim)
        table[:, 0::2], table[:, 1::2] = torch.sin(slots * rates), torch.cos(slots * rates)
        self.register_buffer("pe", table[:, None])

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Tokens (T, B, D) with the positions `first` to first + T - 1."""
        return self.drop(x + self.pe[first : first + len(x)])


class LSTR(nn.Module):
    """The network of `spec`. Raises: ValueError for a spec that cannot be."""

    def __init__(self, spec: LstrSpec) -> None:
        super().__init__()
        spec.check()
        self.spec = spec
        shape = (spec.dim, spec.num_heads, spec.hidden, spec.dropout, spec.activation)
        modules = spec.encoder if spec.num_long else ()
        if spec.num_ages:
            self.feature_head_ages = FeatureHead(spec)
        if spec.num_long:
            self.feature_head_long = FeatureHead(spec)
        self.feature_head_work = FeatureHead(spec)
        self.pos_encoding = PositionalEncoding(spec.dim, spec.dropout, spec.max_positions)
        if spec.num_ages:
            self.ages_modules = nn.GRU(spec.dim, spec.dim)
            self.ages_linears = nn.Sequential(
                nn.Linear(spec.dim, spec.dim),
                nn.ReLU(),
                nn.Dropout(spec.dropout),
                nn.Linear(spec.dim, spec.dim),
                nn.LayerNorm(spec.dim),
            )
        queries: list[nn.Module | None] = []
        stacks: list[nn.Module] = []
        for each in modules:
            if each.num_queries == SELF_ATTENTION:
                queries.append(None)
                stacks.append(EncoderStack(EncoderLayer(*shape), each.num_layers, spec.dim, each.final_norm))
            else:
                queries.append(nn.Embedding(each.num_queries, spec.dim))
                stacks.append(DecoderStack(DecoderLayer(*shape), each.num_layers, spec.dim, each.final_norm))
        self.enc_queries = nn.ModuleList(queries)  # type: ignore[arg-type]  # None keeps the numbering of the others
        self.enc_modules = nn.ModuleList(stacks)
        _, num_layers, final_norm = spec.decoder
        self.dec_modules = (
            DecoderStack(DecoderLayer(*shape), num_layers, spec.dim, final_norm)
            if spec.num_long
            else EncoderStack(EncoderLayer(*shape), num_layers, spec.dim, final_norm)
        )
        self.classifier = nn.Linear(spec.dim, spec.num_classes)
        self.apply(_redraw)

    def forward(
        self, visual: Tensor | None, motion: Tensor | None = None, memory_key_padding_mask: Tensor | None = None
    ) -> Tensor:
        """Logits (B, W, C) of the rows of the work memory; the last row is now.

        Streams are (B, A + N + W, size), oldest rows first. The mask (B, A + N) is added to the scores of the long rows: -inf
        where one is padding. Its first A say nothing: as published, the age memory takes padding for the row that it repeats.
        """
        streams, a, n = (visual, motion), self.spec.num_ages, self.spec.num_memory
        work = self.feature_head_work(*_rows(streams, n, None))
        causal = causal_mask(work.shape[1], work.device)
        if not n:
            work = self.pos_encoding(work.transpose(0, 1), first=0)
            return self.classifier(self.dec_modules(work, causal)).transpose(0, 1)
        age = self.age(self.feature_head_ages(*_rows(streams, 0, a)).transpose(0, 1)) if a else None
        long = self.feature_head_long(*_rows(streams, a, n))
        mask = None if memory_key_padding_mask is None else memory_key_padding_mask[:, a:]
        memory, mask = self.encode(self.pos_encoding(long.transpose(0, 1), first=a), mask)
        if age is not None:
            memory, mask = self.with_age(age, memory, mask)
        work = self.pos_encoding(work.transpose(0, 1), first=n)
        return self.classifier(self.dec_modules(work, memory, causal, mask)).transpose(0, 1)

    def age(self, rows: Tensor) -> Tensor:
        """The token (1, B, D) of the age memory's rows (A, B, D), from their head, oldest first."""
        return self.ages_linears(self.ages_modules(rows)[1])

    @staticmethod
    def with_age(age: Tensor, memory: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The age token before the tokens (S, B, D) of the long memory, and a mask (B, S) that can always see it."""
        if mask is not None:
            mask = torch.cat([mask.new_zeros(len(mask), 1), mask], 1)
        return torch.cat([age, memory]), mask

    def encode(self, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens (N, B, D) of the long memory to what the decoder looks at, and the mask that still belongs to it.

        As published the mask reaches a first module with queries, and nothing else.
        """
        if not self.spec.mask_tokens and (not self.spec.encoder or self.spec.encoder[0].num_queries == SELF_ATTENTION):
            mask = None
        for queries, stack in zip(self.enc_queries, self.enc_modules, strict=True):
            if not isinstance(queries, nn.Embedding):
                tokens = stack(tokens, padding_mask=mask)
            else:
                asked = queries.weight[:, None].expand(-1, tokens.shape[1], -1)
                tokens, mask = stack(asked, tokens, padding_mask=mask), None
        return tokens, mask


def _rows(streams: tuple[Tensor | None, ...], first: int, end: int | None) -> list[Tensor | None]:
    return [None if each is None else each[:, first:end] for each in streams]


def _redraw(module: nn.Module) -> None:
    """Weights of linear layers are drawn once more after construction, so those of stacked copies differ; a GRU's, too."""
    if isinstance(module, nn.Linear):
        nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5))
    elif isinstance(module, nn.GRU):
        for parameter in module.parameters():
            (nn.init.orthogonal_ if parameter.ndim > 1 else nn.init.normal_)(parameter)
