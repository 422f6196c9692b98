"""Makes vision_transformer_golden.json: our weights through the code of others.

    python tests/data/vision_transformer_golden.py PATH_OF_SCENIC

PATH_OF_SCENIC holds google-research/scenic@4a38d475. The file was made with jax 0.10.2, flax 0.12.8
and timm 1.0.31, which are needed for nothing else. Of scenic only the classes named below are run,
without its other imports.
"""

import ast
import json
import logging
import math
import sys
import typing
from pathlib import Path
from typing import Any

import flax  # type: ignore[import-not-found]
import flax.linen  # type: ignore[import-not-found]
import jax  # type: ignore[import-not-found]
import jax.numpy as jnp  # type: ignore[import-not-found]
import numpy as np
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from test_vision_transformer import GOLDEN_CASES, filled, timm_twin, wave  # noqa: E402

from perception.token_learner import TokenFuser, TokenLearner  # noqa: E402
from perception.vision_transformer import VisionTransformer  # noqa: E402

SCENIC = {
    "model_lib/layers/nn_layers.py": {"IdentityLayer", "StochasticDepth"},
    "model_lib/layers/attention_layers.py": {"MlpBlock"},
    "projects/baselines/vit.py": {"AddPositionEmbs", "Encoder1DBlock"},
    "projects/token_learner/model.py": {
        "TokenLearnerModule",
        "TokenLearnerModuleV11",
        "TokenFuser",
        "EncoderMod",
        "EncoderModFuser",
    },
}


class Namespace(dict[str, Any]):
    """What the classes of scenic find by name, also as attributes of its modules."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


def scenic(path: Path) -> Namespace:
    found = Namespace(jax=jax, jnp=jnp, nn=flax.linen, math=math, np=np)
    for name in ("Any", "Optional", "Union", "Sequence", "Callable", "Tuple"):
        found[name] = getattr(typing, name)
    found |= {"logging": logging, "Initializer": Any}
    for module in ("nn_layers", "attention_layers", "vit"):
        found[module] = found
    for file, names in SCENIC.items():
        tree = ast.parse((path / "scenic" / file).read_text())
        tree.body = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name in names]
        exec(compile(tree, file, "exec"), found)
    return found


def array(x: Tensor) -> np.ndarray:
    return x.detach().numpy()


def norm(m: nn.LayerNorm) -> dict[str, Any]:
    return {"scale": array(m.weight), "bias": array(m.bias)}


def dense(m: Any) -> dict[str, Any]:
    bias = torch.zeros(m.out_features) if m.bias is None else m.bias
    return {"kernel": array(m.weight).T, "bias": array(bias)}


def perceptron(first: Any, last: Any) -> dict[str, Any]:
    return {"Dense_0": dense(first), "Dense_1": dense(last)}


def learner(m: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"LayerNorm_0": norm(m.norm)}
    if m.version == "1.1":
        return out | {"token_masking": perceptron(m.weigh[0], m.weigh[3])}
    kernels = [array(c.weight).transpose(2, 3, 1, 0) for c in m.weigh if isinstance(c, nn.Conv2d)]
    return out | {f"Conv_{i}": {"kernel": kernel} for i, kernel in enumerate(kernels)}


def fuser(m: Any) -> dict[str, Any]:
    return {
        "fuser_mix_norm1": norm(m.norm_tokens),
        "Dense_0": dense(m.mix),
        "fuser_mix_norm2": norm(m.norm_mixed),
        "LayerNorm_0": norm(m.norm_map),
        "token_masking": perceptron(m.weigh[0], m.weigh[3]),
    }


def block(m: Any) -> dict[str, Any]:
    heads, width = m.attn.heads, m.attn.proj.in_features
    attention = {}
    for name, weight, bias in zip(
        ("query", "key", "value"), m.attn.qkv.weight.chunk(3), m.attn.qkv.bias.chunk(3), strict=True
    ):
        attention[name] = {
            "kernel": array(weight).T.reshape(width, heads, -1),
            "bias": array(bias).reshape(heads, -1),
        }
    attention["out"] = {
        "kernel": array(m.attn.proj.weight).T.reshape(heads, -1, width),
        "bias": array(m.attn.proj.bias),
    }
    return {
        "LayerNorm_0": norm(m.norm1),
        "MultiHeadDotProductAttention_0": attention,
        "LayerNorm_1": norm(m.norm2),
        "MlpBlock_0": perceptron(m.fc1, m.fc2),
    }


def encoder(m: Any, n_places: int, version: str) -> dict[str, Any]:
    width = m.norm.normalized_shape[0]
    name = "TokenLearnerModule" + ("V11" if version == "1.1" else "")
    out: dict[str, Any] = {
        "posembed_input": {"pos_embedding": np.zeros((1, n_places, width), np.float32)},
        "encoder_norm": norm(m.norm),
    }
    out |= {f"encoderblock_{i}": block(b) for i, b in enumerate(m.blocks)}
    out |= {f"{name}_{i}": learner(x) for i, x in enumerate(m.learners)}
    return out | {f"TokenFuser_{i}": fuser(x) for i, x in enumerate(m.fusers)}


def of_scenic(module: Any, inputs: tuple[Any, ...], frames: int, s: Namespace) -> Any:
    arrays = [array(x) for x in inputs if isinstance(x, Tensor)]
    if isinstance(module, TokenLearner) and module.version == "1.0":
        net = s.TokenLearnerModule(module.tokens, module.pool == "sum")
        return net.apply({"params": learner(module)}, *arrays)
    if isinstance(module, TokenLearner):
        net = s.TokenLearnerModuleV11(module.tokens, module.weigh[0].out_features)
        return net.apply({"params": learner(module)}, *arrays, deterministic=True)
    if isinstance(module, TokenFuser):
        net = s.TokenFuser(bottleneck_dim=module.weigh[0].out_features)
        return net.apply({"params": fuser(module)}, *arrays, deterministic=True)
    kind = s.EncoderModFuser if module.fusers else s.EncoderMod
    net = kind(
        num_layers=len(module.blocks),
        mlp_dim=module.blocks[0].fc1.out_features,
        num_heads=module.blocks[0].attn.heads,
        tokenizer_type="dynamic",
        temporal_dimensions=frames,
        num_tokens=module.learners[0].tokens,
        tokenlearner_loc=module.first,
        use_v11=module.learners[0].version == "1.1",
    )
    params = encoder(module, arrays[0].shape[1], module.learners[0].version)
    return net.apply({"params": params}, arrays[0], train=False)


def main() -> None:
    found = scenic(Path(sys.argv[1]))
    golden = {}
    for name, (build, inputs, frames) in GOLDEN_CASES.items():
        module = filled(build())
        if isinstance(module, VisionTransformer):
            with torch.no_grad():
                out = timm_twin(module)(wave("images", inputs[0].shape)).numpy()
        else:
            out = np.asarray(of_scenic(module, inputs, frames, found))
        golden[name] = {"shape": out.shape, "values": [round(float(v), 6) for v in out.ravel()]}
    lines = ",\n".join(f'"{name}": {json.dumps(value)}' for name, value in golden.items())
    Path(__file__).with_suffix(".json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
