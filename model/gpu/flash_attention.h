// LibTorch's flash attention over documents that lie one after the other: no token of one sees another, no mask and no
// padding is ever made, memory is linear in the tokens.
//
// What it takes: bf16 and fp16 on CUDA from compute capability 8.0 on, head dimensions up to 256 that are multiples of
// 8, causal with or without a window. It has no soft-cap (Gemma 2) and no fp32: those go through blockwise_attention.h.
// GEMMA_SFT_ATTENTION=blocks sends everything there; "flash" makes what cannot take it an Error(kUsage) that says why;
// "auto" is the default: flash attention, unless Gemma::choose_attention finds that it is slower.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>

#include "model/attention.h"

namespace gemma_sft {

enum class AttentionChoice { kAuto, kFlash, kBlocks };

// A text like that of GEMMA_SFT_ATTENTION; empty is auto. Throws Error(kUsage).
AttentionChoice parse_attention_choice(const std::string& text);

// Why flash attention cannot take such queries [tokens, heads, head_dim], in a few words; nothing where it can.
// Compares the arguments of the loaded LibTorch's operator with those that are passed here.
std::optional<std::string> find_flash_obstacle(const at::Tensor& query, const AttentionOptions& options);

// Flash attention can take such queries, and GEMMA_SFT_ATTENTION asks for neither way.
bool is_attention_left_open(const at::Tensor& query, const AttentionOptions& options);

// What GEMMA_SFT_ATTENTION, `options` and find_flash_obstacle come to. Throws Error(kUsage).
bool takes_flash(const at::Tensor& query, const AttentionOptions& options);

// query [tokens, heads, head_dim]; key, value [tokens, kv_heads, head_dim]; offsets [documents + 1] int32 on the same
// device, where each document begins and the last one ends; longest: tokens of the longest. Gives [tokens, heads,
// head_dim]. Differentiable; keeps its inputs, its output and a float per token and head.
at::Tensor flash_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const at::Tensor& offsets, int64_t longest, const AttentionOptions& options);

}  // namespace gemma_sft
