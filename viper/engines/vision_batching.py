"""Vision attention for many images of one size in one call.

Without FlashAttention, transformers attends to one image after the other, which on a CPU costs more than the
arithmetic. When all images of a batch have the same number of patches, the same attention is one batched call.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionPatchEmbed,
    Qwen2_5_VLVisionAttention,
    apply_rotary_pos_emb_vision,
)


def _attend(self: Any, hidden_states: Tensor, cu_seqlens: Tensor, position_embeddings: Any = None, **kw: Any) -> Any:
    lengths = cu_seqlens[1:] - cu_seqlens[:-1]
    if bool((lengths != lengths[0]).any()):
        original = Qwen2_5_VLVisionAttention.forward
        return original(self, hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kw)
    tokens, images = hidden_states.shape[0], len(lengths)
    query, key, value = self.qkv(hidden_states).reshape(tokens, 3, self.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
    query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    shape = (images, tokens // images, self.num_heads, -1)
    query, key, value = (part.reshape(shape).transpose(1, 2) for part in (query, key, value))
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, scale=self.scaling)
    return self.proj(mixed.transpose(1, 2).reshape(tokens, -1))


def _embed(self: Any, hidden_states: Tensor) -> Tensor:
    weight = self.proj.weight.flatten(1)
    embedded: Tensor = nn.functional.linear(hidden_states.reshape(-1, weight.shape[1]).to(weight.dtype), weight)
    return embedded


def batch_vision_attention(model: nn.Module) -> int:
    """Makes every Qwen2.5-VL vision attention in `model` batched; returns how many were changed.

    Results stay those of transformers up to the rounding of one addition order. Images of different sizes in one
    batch take the original path. A model without such modules is left alone. Patch embedding, a convolution whose
    stride is its kernel, becomes the matrix product that it is.
    """
    changed = 0
    for module in model.modules():
        if isinstance(module, Qwen2_5_VLVisionAttention):
            module.forward = MethodType(_attend, module)
            changed += 1
        elif isinstance(module, Qwen2_5_VisionPatchEmbed):
            module.forward = MethodType(_embed, module)
    return changed
