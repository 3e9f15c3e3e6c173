"""Small networks of every kind, for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace

import torch

from loaders.windows import OnlineWindows
from trainers.lstr.network import LSTR, LstrSpec, Module

SMALL = LstrSpec(
    num_classes=5,
    visual_size=6,
    motion_size=4,
    width=16,
    num_long=8,
    num_work=6,
    encoder=(Module(4, 1, True), Module(3, 2, True)),
    decoder=Module(-1, 2, True),
    num_heads=4,
    hidden=12,
    dropout=0.1,
    max_positions=64,
)

SPECS = {
    "published": SMALL,
    "three_modules_gelu": replace(
        SMALL, encoder=(Module(4, 1, False), Module(3, 1, False), Module(2, 1, True)), activation="gelu"
    ),
    "deep_first_module": replace(SMALL, encoder=(Module(4, 3, True),)),
    "self_attention_first": replace(SMALL, encoder=(Module(-1, 2, True), Module(3, 1, True))),
    "self_attention_last": replace(SMALL, encoder=(Module(4, 1, True), Module(-1, 1, True))),
    "no_encoder": replace(SMALL, encoder=()),
    "masked_self_attention": replace(SMALL, encoder=(Module(-1, 1, True), Module(3, 1, True)), mask_tokens=True),
    "masked_no_encoder": replace(SMALL, encoder=(), mask_tokens=True),
    "one_decoder_layer": replace(SMALL, decoder=Module(-1, 1, False)),
    "three_decoder_layers": replace(SMALL, decoder=Module(-1, 3, True)),
    "no_decoder_layer": replace(SMALL, decoder=Module(-1, 0, True)),
    "no_long_memory": replace(SMALL, num_long=0),
    "no_long_memory_one_layer": replace(SMALL, num_long=0, decoder=Module(-1, 1, True)),
    "ages": replace(SMALL, num_ages=3),
    "ages_masked_self_attention": replace(
        SMALL, encoder=(Module(-1, 1, True),), mask_tokens=True, num_ages=2, decoder=Module(-1, 1, True)
    ),
    "motion_no_heads": replace(SMALL, modality="motion", motion_size=8, width=None),
    "visual_own_width": replace(SMALL, modality="visual", visual_size=8, width=0),
}


def make(spec: LstrSpec, seed: int = 0) -> LSTR:
    """A network with weights that make every part matter: freshly drawn, biases and norms disturbed."""
    torch.manual_seed(seed)
    model = LSTR(spec)
    for name, value in model.named_parameters():
        if value.ndim == 1:
            value.data += 0.3 * torch.randn_like(value)
        elif "enc_queries" not in name:
            value.data *= 1.5
    return model.eval()


def windows_for(spec: LstrSpec, long_rate: int, work_rate: int = 1) -> OnlineWindows:
    return OnlineWindows(spec.num_work * work_rate, work_rate, spec.num_memory * long_rate, long_rate)
