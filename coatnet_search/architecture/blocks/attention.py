"""T: pre-norm self-attention with a learned relative bias, then a feed-forward layer.

Shapes: B batch, D in_width, W width, G side of the OUTGOING map, N = G*G tokens, H heads, K head size.
A channels-last map is the token matrix already, so the permutes below are views.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from coatnet_search.architecture.blocks.common import ACTIVATIONS, POOLS, Dense, Shortcut

MIN_TOKENS = 16  # below, attention is close to a linear map of its few inputs and layouts cannot differ


class RelativeBias(nn.Module):
    """One scalar per head and offset: a table (H, 2G-1, 2G-1), looked up as (H, N, N).

    In eval mode without gradients the looked-up bias is kept, until the table changes or a step is trained.
    """

    index: Tensor

    def __init__(self, heads: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros(heads, 2 * grid - 1, 2 * grid - 1))
        self.register_buffer("index", _offsets(grid), persistent=False)  # (N*N)
        self._kept: tuple[object, Tensor, Tensor] | None = None  # state of the table, the table, its (H, N, N)

    def forward(self) -> Tensor:
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling() or not self._counts_changes():
            self._kept = None
            return self._look_up()
        state = (self.table._version, self.table.data_ptr(), self.table.dtype)
        if self._kept is None or self._kept[0] != state:
            self._kept = (state, self.table.detach(), self._look_up())  # a table that is held has its address alone
        return self._kept[2]

    def _counts_changes(self) -> bool:
        """A table that a functional call puts in, or that was made in inference mode, does not tell its changes."""
        return type(self.table) is nn.Parameter and not self.table.is_inference()

    def train(self, mode: bool = True) -> Self:
        self._kept = None  # fused optimisers and FSDP change the table without counting a version
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        """``to``, ``cuda``, ``to_empty``: the last one leaves buffers unset, and no state dict holds the index."""
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._kept = None
        if not self.table.is_meta:
            self.index = _offsets(self.grid).to(self.table.device)
        return self

    def _look_up(self) -> Tensor:
        tokens = (self.table.shape[-1] + 1) ** 2 // 4
        flat = self.table.flatten(1).index_select(1, self.index.to(self.table.device))  # (H, N*N)
        return flat.view(-1, tokens, tokens)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # a copy looks up its own


def _offsets(grid: int) -> Tensor:
    """The place in a flat table of each pair of tokens, (N*N); on the CPU even under ``torch.device("meta")``."""
    side = torch.arange(grid, device="cpu")
    offset = side[:, None] - side[None, :] + grid - 1  # (G, G): row or column difference, from 0
    index = offset[:, None, :, None] * (2 * grid - 1) + offset[None, :, None, :]  # (G, G, G, G)
    return index.reshape(-1)


class Attention(nn.Module):
    """x = shortcut(x) + attention(pool(norm(x))); x = x + ffn(norm(x)). CoAtNet, section 2.1 and appendix A.1.

    Rows of ``qkv`` are ordered (head, [q, k, v], K), so that the leading heads are the leading rows.
    """

    def __init__(self, in_width: int, width: int, stride: int, grid: int, *, drop_path: float = 0.0, expand: float,
                 head_size: int, relative: bool, pool: str, norm_eps: float, activation: str) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.head_size = width // head_size, head_size
        self.shortcut = Shortcut(in_width, width, stride, pool)
        self.norm1 = nn.LayerNorm(in_width, eps=norm_eps)
        self.pool = POOLS[pool](stride) if stride > 1 else nn.Identity()
        self.qkv = Dense(in_width, 3 * width)
        self.relative_bias = RelativeBias(self.heads, grid // stride) if relative else None
        self.proj = Dense(width, width)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.fc1 = Dense(width, int(expand * width))
        self.act = ACTIVATIONS[activation]()
        self.fc2 = Dense(int(expand * width), width)
        self.drop_path2 = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x.permute(0, 2, 3, 1))  # (B, G*stride, G*stride, D)
        y = self.pool(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, G, G, D)
        x = self.shortcut(x).permute(0, 2, 3, 1).contiguous()  # (B, G, G, W); a copy of channels-first maps alone
        x = x + self.drop_path1(self.attend(y))
        x = x + self.drop_path2(self.fc2(self.act(self.fc1(self.norm2(x)))))
        return x.permute(0, 3, 1, 2)  # (B, W, G, G)

    def attend(self, y: Tensor) -> Tensor:
        """(B, G, G, D) -> (B, G, G, W)."""
        batch, side = y.shape[0], y.shape[1]
        qkv = self.qkv(y).view(batch, side * side, self.heads, 3, self.head_size)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # each (B, H, N, K)
        bias = None if self.relative_bias is None else self.relative_bias().to(q.dtype).unsqueeze(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)  # (B, H, N, K); scale K^-0.5
        return self.proj(y.transpose(1, 2).reshape(batch, side, side, -1))

    @staticmethod
    def problems(in_width: int, width: int, grid: int, *, expand: float, head_size: int, **others: Any) -> list[str]:
        """Why such a block cannot be built; ``grid``: side of the outgoing map."""
        reasons = []
        if grid * grid < MIN_TOKENS:
            reasons.append(f"attention needs at least {MIN_TOKENS} tokens, {grid}x{grid} leaves {grid * grid}")
        if head_size < 1 or width % head_size or not isinstance(head_size, int):
            reasons.append(f"head_size must be a whole number that divides width {width}, got {head_size}")
        if expand < 1 or not float(expand * width).is_integer():
            reasons.append(f"expand must be at least 1 and give a whole inner width, got {expand} x {width}")
        return reasons
