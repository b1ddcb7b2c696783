"""Writes reference_values.h: what transformers' Gemma modules compute for small inputs.

Run with the packages of tests/compat/requirements.txt:  python tests/model/make_reference_values.py
"""

import pathlib

import torch
import transformers
from transformers import Gemma3TextConfig
from transformers.models.gemma3 import modeling_gemma3 as gemma3

HERE = pathlib.Path(__file__).resolve().parent
lines = []


def emit(name, tensor):
    values = tensor.detach().float().flatten().tolist()
    body = ", ".join(f"{value:.9g}" for value in values)
    lines.append(f"// {list(tensor.shape)}\ninline const std::vector<float> {name} = {{{body}}};")


def rms_norm():
    x, weight, gradient = torch.randn(3, 8) * 3, torch.randn(8) * 0.5, torch.randn(3, 8)
    emit("kNormInput", x)
    emit("kNormWeight", weight)
    emit("kNormOutputGradient", gradient)
    for suffix, dtype in (("", torch.float32), ("Bf16", torch.bfloat16)):
        norm = gemma3.Gemma3RMSNorm(8, eps=1e-6)
        norm.weight = torch.nn.Parameter(weight.to(dtype))
        given = x.to(dtype).requires_grad_(True)
        output = norm(given)
        output.backward(gradient.to(dtype))
        emit(f"kNormOutput{suffix}", output)
        if dtype == torch.float32:
            emit("kNormInputGradient", given.grad)
            emit("kNormWeightGradient", norm.weight.grad)


def rotary():
    positions = [0, 1, 7, 100, 8191, 131071]
    config = Gemma3TextConfig(hidden_size=16, head_dim=8, num_attention_heads=2, num_key_value_heads=2,
        rope_parameters={"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}})
    table = gemma3.Gemma3RotaryEmbedding(config)
    x = torch.randn(len(positions), 2, 8)
    lines.append(f"inline const std::vector<int64_t> kRotaryPositions = {{{', '.join(map(str, positions))}}};")
    emit("kRotaryInput", x)
    for suffix, dtype in (("", torch.float32), ("Bf16", torch.bfloat16)):
        for name, kind in (("Local", "sliding_attention"), ("Global", "full_attention")):
            given = x.to(dtype).transpose(0, 1)[None]
            cos, sin = table(given, torch.tensor([positions]), kind)
            turned, _ = gemma3.apply_rotary_pos_emb(given, given, cos, sin)
            emit(f"kRotary{name}{suffix}", turned[0].transpose(0, 1))


def gate():
    gate, up, gradient = torch.randn(4, 5) * 2, torch.randn(4, 5), torch.randn(4, 5)
    emit("kGate", gate)
    emit("kUp", up)
    emit("kGateOutputGradient", gradient)
    mlp = gemma3.Gemma3MLP(Gemma3TextConfig(hidden_size=16, intermediate_size=5, head_dim=8, num_attention_heads=2))
    gate.requires_grad_(True), up.requires_grad_(True)
    output = mlp.act_fn(gate) * up
    output.backward(gradient)
    emit("kGateOutput", output)
    emit("kGateGradient", gate.grad)
    emit("kUpGradient", up.grad)
    emit("kGateOutputBf16", mlp.act_fn(gate.detach().bfloat16()) * up.detach().bfloat16())


def embedding_scales():
    """The scale that the embedding module of a bf16 model holds, per hidden size."""
    for width in (640, 1152, 2048, 2304, 2560, 3072, 3584, 3840, 4608, 5376):
        module = gemma3.Gemma3TextScaledWordEmbedding(4, width, 0, embed_scale=width**0.5)
        with torch.no_grad():
            module.weight.fill_(1.0)
        bf16 = module.bfloat16()(torch.tensor([1]))[0, 0].item()
        scales.append(f"    {{{width}, {width**0.5:.9g}, {bf16:.9g}}},")


scales = []
torch.manual_seed(20)
rms_norm()
rotary()
gate()
embedding_scales()
text = f"""// Written by make_reference_values.py with transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}.
// clang-format off
#pragma once

#include <cstdint>
#include <vector>

namespace gemma_sft {{

struct EmbeddingScale {{
  int64_t hidden_size;
  double exact, bf16;
}};
inline const std::vector<EmbeddingScale> kEmbeddingScales = {{
{chr(10).join(scales)}
}};

{chr(10).join(lines)}

}}  // namespace gemma_sft
"""
(HERE / "reference_values.h").write_text(text)
