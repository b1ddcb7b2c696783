// The same as files of a model: config.json, tokenizer, adapter, names and index. What only the engine reads is read by
// a child process here, under the same limits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/text/sentencepiece_model.h"
#include "model/weight_files.h"
#include "tests/e2e/hostile.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

TEST_F(Hostile, ModelConfigurations) {
  std::string keys = "{\"model_type\":\"gemma3_text\"";
  for (int i = 0; i < 50'000; ++i) keys += ",\"k" + std::to_string(i) + "\":1";
  const auto with = [](const std::string& more) { return "{\"model_type\":\"gemma3_text\"," + more + "}"; };
  const struct {
    const char* name;
    std::string text;
    std::string message;
  } files[] = {
      {"lists", repeated("[", kDeep), "levels of nesting"},
      {"maps", repeated("{\"text_config\":", kDeep / 2), "levels of nesting"},
      {"keys", keys + "}", "problems:"},
      {"layer types", with("\"layer_types\":[" + repeated("\"x\",", 200'000) + "\"x\"]"), "layer_types"},
      {"sizes", with("\"hidden_size\":9223372036854775807,\"vocab_size\":9223372036854775807"), "hidden_size"},
      {"more than 64 bits", with("\"head_dim\":18446744073709551616"), "head_dim"},
      {"negative", with("\"num_hidden_layers\":-1"), "num_hidden_layers"},
      {"fractions", with("\"num_attention_heads\":1e300"), "num_attention_heads"},
      {"carriage return", "\r", "config.json:1:2: expected a JSON value"},
      {"pickle", std::string("\x80\x02}q\0.", 6), "this is a pickle; such files can run code"},
  };
  for (const auto& file : files)
    expect_refused(generate(model_with("config.json", file.text)), {12, file.message}, file.name);
  sparse_file(dir_, "good/config.json", "{", kGigabyte);
  expect_refused(generate("good"), {9, "expected at most"}, "1 GB");
}

TEST_F(Hostile, TokenizerModels) {
  SentencePieceModel good = parse_sentencepiece_model(read_file(dir_ / "good/tokenizer.model"), "good");
  const auto with_piece = [&](const std::string& text, PieceType type) {
    SentencePieceModel model = good;
    model.pieces.push_back({text, -1, type});
    return serialize_sentencepiece_model(model);
  };
  std::string many;
  for (size_t i = 0; i <= SentencePieceModel::kMaxPieces; ++i) many += std::string("\x0a\x03\x0a\x01x", 5);
  const struct {
    const char* name;
    std::string bytes;
    std::string message;
  } files[] = {
      {"100 KB piece", with_piece(std::string(100'000, 'x'), PieceType::kNormal),
       "100000 bytes long, expected at most"},
      {"100 KB user piece", with_piece(std::string(100'000, 'x'), PieceType::kUserDefined), "100000 bytes long"},
      {"negative byte", with_piece("<0x-1>", PieceType::kByte), "expected <0x00> to <0xFF>"},
      {"no byte", with_piece("<0xZZ>", PieceType::kByte), "expected <0x00> to <0xFF>"},
      {"long byte", with_piece("<0x100>", PieceType::kByte), "expected <0x00> to <0xFF>"},
      {"many pieces", many, "more than"},
      {"a long varint", std::string(11, '\xff'), "more than 64 bits"},
      {"a wrapped length", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "a field longer than the file"},
      {"groups", repeated("\x0b", kDeep), "an unknown wire type"},
      {"empty", "\n", "is not a sentencepiece model"},
      {"pickle", std::string("\x80\x02}q\0.", 6), "this is a pickle; such files can run code"},
      {"torch.save", std::string("PK\x03\x04\0\0", 6), "this is a zip archive, as torch.save writes"},
  };
  for (const auto& file : files)
    expect_refused(tokenize(model_with("tokenizer.model", file.bytes)), {12, file.message}, file.name);
  sparse_file(dir_, "good/tokenizer.model", "\x0a", kGigabyte);
  expect_refused(tokenize("good"), {12, "expected at most"}, "1 GB");
}

TEST_F(Hostile, Adapters) {
  const auto generate_with = [&] {
    return run_limited(dir_, {"generate", "--model", "good", "--adapter", "a", "--prompt", "x"});
  };
  const struct {
    const char* name;
    std::string text;
    std::string message;
  } files[] = {
      {"lists", repeated("[", kDeep), "levels of nesting"},
      {"maps", repeated("{\"r\":", kDeep), "levels of nesting"},
      {"rank", R"({"peft_type":"LORA","r":9223372036854775807,"lora_alpha":1,"target_modules":["q_proj"]})",
       "\"r\" is"},
      {"carriage return", "\r", "adapter_config.json:1:2: expected"},
      {"pickle", std::string("\x80\x02}q\0.", 6), "this is a pickle"},
  };
  for (const auto& file : files) {
    dir_.write("a/adapter_config.json", file.text);
    expect_refused(generate_with(), {12, file.message}, file.name);
  }
  sparse_file(dir_, "a/adapter_config.json", "{", kGigabyte);
  expect_refused(generate_with(), {9, "expected at most"}, "1 GB");
  // The layers are read off the tensors' names here, so that the program reads a safetensors header itself.
  dir_.write("a/adapter_config.json", R"({"peft_type":"LORA","r":8,"lora_alpha":1,"target_modules":"all-linear"})");
  const auto entry = [](const std::string& name, const std::string& shape) {
    return "\"" + name + "\":{\"dtype\":\"F32\",\"shape\":" + shape + ",\"data_offsets\":[0,0]},";
  };
  constexpr uint64_t kLarge = 24'000'000;  // just within the limit of a header
  const struct {
    const char* name;
    std::string bytes;
    std::string message;
  } weights[] = {
      {"header length 2^63", with_length(1ull << 63, "{}"), "expected a header of at most"},
      {"header length wraps", with_length(~0ull - 7, "{}"), "expected a header of at most"},
      {"lists", tensors_file("{\"a\":" + repeated("[", kDeep)), "levels of nesting"},
      {"shape wraps to 0",
       tensors_file(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})"), "is too large"},
      {"bytes wrap", tensors_file(R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})"),
       "is too large"},
      {"offsets beyond",
       tensors_file(R"({"a":{"dtype":"F32","shape":[4611686018427387903],"data_offsets":[0,18446744073709551612]}})"),
       "data_offsets"},
      {"carriage return", "\r", "expected a header length of 8 bytes, found 1"},
      {"pickle", std::string("\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", 20), "this is a pickle"},
      {"torch.save", std::string("PK\x03\x04\0\0\x08\x08\0\0\0\0", 12), "this is a zip archive, as torch.save writes"},
  };
  for (const auto& file : weights) {
    dir_.write("a/adapter_model.safetensors", file.bytes);
    expect_refused(generate_with(), {12, file.message}, file.name);
  }
  const auto large_header = [&](const std::function<std::string(size_t)>& piece) {
    large_file(dir_, "a/adapter_model.safetensors", with_length(kLarge, "{"), kLarge + 8, piece,
               "\"x\":{" + std::string(200, ' '));
    fs::resize_file(dir_ / "a/adapter_model.safetensors", kLarge + 8);
    return generate_with();
  };
  expect_refused(large_header([&](size_t i) { return entry("t" + std::to_string(i), "[0]"); }), {12, "byte "},
                 "tensors");
  expect_refused(
      large_header([&](size_t i) { return entry("t" + std::to_string(i), "[0" + repeated(",1", 63) + "]"); }),
      {12, "byte "}, "dimensions");
  expect_refused(large_header([&](size_t i) { return entry(std::string(1000, 'n') + std::to_string(i), "[0]"); }),
                 {12, "byte "}, "names");
  sparse_file(dir_, "a/adapter_model.safetensors", with_length(600'000'000, "{"), kGigabyte);  // 10 M tensors
  expect_refused(generate_with(), {12, "expected a header of at most"}, "10 M tensors");
}

TEST_F(Hostile, NamesInModelFolders) {
  for (const char* name : {"config.json", "tokenizer.model"}) {
    const auto run = [&](const fs::path& folder) {
      return std::string(name) == "config.json" ? generate(folder) : tokenize(folder);
    };
    const auto planted = [&](const std::function<void(const fs::path&)>& plant) {
      const fs::path folder = model_with(name, "");
      plant(folder / name);
      return run(folder);
    };
    const fs::path outside = dir_ / "good" / name;
    expect_refused(planted([&](const fs::path& path) { fs::create_symlink(outside, path); }),
                   {12, "outside the folder, and is not followed"}, "absolute link");
    expect_refused(planted([&](const fs::path& path) { fs::create_symlink("../good/" + std::string(name), path); }),
                   {12, "outside the folder, and is not followed"}, "relative link");
    expect_refused(planted([&](const fs::path& path) { fs::create_symlink("/dev/zero", path); }),
                   {12, "outside the folder, and is not followed"}, "link to a device");
    expect_refused(planted([&](const fs::path& path) { fs::create_symlink("nowhere", path); }), {12, "leads nowhere"},
                   "link to nothing");
    expect_refused(planted([&](const fs::path& path) { fs::create_symlink(name, path); }), {12, "leads nowhere"},
                   "link to itself");
    expect_refused(planted([&](const fs::path& path) { ::mkfifo(path.c_str(), 0600); }),
                   {12, "found a pipe, socket or device"}, "pipe");
    expect_refused(planted([&](const fs::path& path) { fs::create_directory(path); }), {12, "found a folder"},
                   "folder");
  }
  const std::string long_name(5000, 'a');
  expect_refused(generate(long_name), {12, "not found"}, "a name of 5,000 bytes");
  expect_refused(generate("../" + std::string(300, 'b')), {12, "not found"}, "a name of 300 bytes");
  for (const char* file : {"model.pt", "pytorch_model.bin", "model.safetensors"}) {
    dir_.write(file, std::string("PK\x03\x04\0\0", 6));
    expect_refused(generate(dir_ / file), {12, "this is a zip archive, as torch.save writes; such files can run code"},
                   file);
    dir_.write(file, std::string("\x80\x02}q\0.", 6));
    expect_refused(generate(dir_ / file), {12, "this is a pickle; such files can run code"}, file);
  }
}

// A Hugging Face cache is made of links, and goes on working.
TEST_F(Hostile, TheHuggingFaceCacheIsRead) {
  const std::string commit(40, 'a');
  const std::string repository = "hub/models--google--gemma-x/";
  dir_.write(repository + "refs/main", commit);
  const fs::path snapshot = dir_ / (repository + "snapshots/" + commit);
  fs::create_directories(snapshot);
  for (const char* name : {"config.json", "tokenizer.model"}) {
    dir_.write(repository + "blobs/" + name, read_file(dir_ / "good" / name));
    fs::create_symlink("../../blobs/" + std::string(name), snapshot / name);
  }
  const ProcessResult tokenized = tokenize(snapshot);
  EXPECT_EQ(tokenized.exit_code, 0) << tokenized.err;
  dir_.write("h.yaml", "model: {base_model: google/gemma-x}\ndataset: {data_path: rows.jsonl}\n");
  const ProcessResult explained =
      run_limited(dir_, {"explain", "--config", "h.yaml", "--row", "1"}, {{"HF_HUB_CACHE", (dir_ / "hub").string()}});
  EXPECT_EQ(explained.exit_code, 0) << explained.err;
}

// The index of a sharded model is read by the engine alone.
TEST_F(Hostile, WeightIndexes) {
  // `read` in a child process: its exit code is that of the program for the same Error.
  const auto in_child = [&](const std::function<void()>& read) {
    const fs::path out = dir_ / "child.err";
    const pid_t child = fork();
    if (child == 0) {
#ifndef GEMMA_SFT_SANITIZED
      const rlimit stack = {8 << 20, 8 << 20};
      setrlimit(RLIMIT_STACK, &stack);
#endif
      int code = 0;
      std::string text;
      try {
        read();
      } catch (const Error& error) {
        code = exit_code(error.kind());
        text = error.what();
      } catch (const std::exception& error) {
        code = 70;
        text = error.what();
      }
      dir_.write("child.err", text);
      _exit(code);
    }
    int status = 0;
    rusage usage{};
    wait4(child, &status, 0, &usage);
    ProcessResult result;
    if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
    if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
    result.err = fs::exists(out) ? read_file(out) : "";
    fs::remove(out);
    result.peak_memory_bytes = static_cast<int64_t>(usage.ru_maxrss) * 1024;
    result.cpu_seconds = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                         static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    return result;
  };
  const std::string shard = tensors_file(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "1234");
  const auto index_to = [](const std::string& name) { return R"({"weight_map":{"a":")" + name + "\"}}"; };
  std::string shards = "{\"weight_map\":{";
  for (int i = 0; i < 100'000; ++i) shards += "\"t" + std::to_string(i) + "\":\"s" + std::to_string(i) + "\",";
  const struct {
    const char* name;
    std::string text;
    std::string message;
  } files[] = {
      {"lists", repeated("[", kDeep), "levels of nesting"},
      {"maps", repeated("{\"weight_map\":", kDeep), "levels of nesting"},
      {"shards", shards + "\"a\":\"a.safetensors\"}}", "and 99900 more"},
      {"parent", index_to("../rows.jsonl"), "expected the name of a file in the same folder"},
      {"inner parent", index_to("x/../a.safetensors"), "expected the name of a file in the same folder"},
      {"absolute", index_to("/etc/passwd"), "expected the name of a file in the same folder"},
      {"backslash", index_to("..\\\\a"), "expected the name of a file in the same folder"},
      {"NUL", index_to("a.safetensors\\u0000x"), "expected the name of a file in the same folder"},
      {"empty name", index_to(""), "expected the name of a file in the same folder"},
      {"the folder", index_to("."), "expected the name of a file in the same folder"},
      {"300 bytes", index_to(std::string(300, 'x')), "expected the name of a file in the same folder"},
      {"device", index_to("zero"), "outside the folder, and is not followed"},
      {"link outside", index_to("outside"), "outside the folder, and is not followed"},
      {"pipe", index_to("pipe"), "found a pipe, socket or device"},
      {"folder", index_to("folder"), "found a folder"},
      {"absent", index_to("absent"), "names files that are not there"},
      {"carriage return", "\r", "expected a JSON value"},
      {"pickle", std::string("\x80\x02}q\0.", 6), "this is a pickle"},
      {"pickled shard", index_to("pickle.safetensors"), "this is a zip archive, as torch.save writes"},
  };
  dir_.write("m/a.safetensors", shard);
  dir_.write("m/pickle.safetensors", std::string("PK\x03\x04\0\0\0\0\0\0", 10));
  dir_.write("m/folder/x", "");
  fs::create_symlink("/dev/zero", dir_ / "m/zero");
  fs::create_symlink("../good/config.json", dir_ / "m/outside");
  ASSERT_EQ(::mkfifo((dir_ / "m/pipe").c_str(), 0600), 0);
  const auto read = [&] { files_dtype(dir_ / "m"); };
  dir_.write("m/model.safetensors.index.json", index_to("a.safetensors"));
  EXPECT_EQ(in_child(read).exit_code, 0);
  for (const auto& file : files) {
    dir_.write("m/model.safetensors.index.json", file.text);
    expect_refused(in_child(read), {12, file.message}, file.name);
  }
  sparse_file(dir_, "m/model.safetensors.index.json", "{", kGigabyte);
  expect_refused(in_child(read), {9, "expected at most"}, "1 GB");
  // Weights that are only there as pickles.
  for (const char* name : {"pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "model.pt"}) {
    dir_.write(std::string("p") + name + "/" + name, std::string("PK\x03\x04\0\0\0\0", 8));
    expect_refused(in_child([&] { files_dtype(dir_ / (std::string("p") + name)); }), {12, "Convert it: python3 -c"},
                   name);
  }
}

}  // namespace
}  // namespace gemma_sft
