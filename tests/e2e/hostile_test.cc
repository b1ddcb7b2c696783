// Files made to hurt: bombs, broken sizes, pickles, links, pipes and devices, given to the real program. Each must be
// refused in under a second of processor time and 64 MB, with an exit code of the table and a message, and no signal;
// 256 MB of address space and the usual stack of 8 MB are all it gets. What only the engine reads is read by a child
// process here, under the same limits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "configs/error.h"
#include "data/files/file_system.h"
#include "data/files/safetensors.h"
#include "data/files/utf8.h"
#include "data/text/sentencepiece_model.h"
#include "model/weight_files.h"
#include "tests/e2e/process.h"
#include "tests/testing/suite_count.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr uint64_t kGigabyte = 1ull << 30;
constexpr size_t kDeep = 100'000;

std::string repeated(const std::string& text, size_t times) {
  std::string all;
  all.reserve(text.size() * times);
  for (size_t i = 0; i < times; ++i) all += text;
  return all;
}

// A file of `bytes` bytes that begins with `start`; the rest is a hole.
fs::path sparse_file(const TempDir& dir, const std::string& name, const std::string& start, uint64_t bytes) {
  const fs::path path = dir.write(name, start);
  fs::resize_file(path, bytes);
  return path;
}

// A large file in pieces: a child's peak counts from that of its parent, so this process must stay small.
fs::path large_file(const TempDir& dir, const std::string& name, const std::string& start, uint64_t bytes,
                    const std::function<std::string(size_t)>& piece, const std::string& end) {
  const fs::path path = dir.write(name, start);
  std::ofstream stream(path, std::ios::binary | std::ios::app);
  uint64_t written = start.size();
  for (size_t i = 0; written + end.size() < bytes; ++i) {
    const std::string text = piece(i);
    stream << text;
    written += text.size();
  }
  stream << end;
  return path;
}

std::string with_length(uint64_t length, const std::string& rest) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(length >> (8 * i) & 0xff);
  return bytes + rest;
}

std::string tensors_file(const std::string& header, const std::string& data = "") {
  return with_length(header.size(), header + data);
}

// gemma-sft under the limits. Sanitizers reserve terabytes of address space, so there only the outcome counts.
ProcessResult run_limited(const TempDir& dir, std::vector<std::string> words,
                          const std::map<std::string, std::string>& environment = {}) {
  words.insert(words.begin(), program("gemma-sft"));
#ifndef GEMMA_SFT_SANITIZED
  words.insert(words.begin(), {"/bin/sh", "-c", "ulimit -v 262144; ulimit -s 8192; exec \"$@\"", "sh"});
#endif
  return run_process(words, {.folder = dir.path(), .environment = environment, .limit_seconds = 60});
}

struct Refusal {
  int exit_code = 0;
  std::string message;  // part of it
};

// Says aloud how many files this program was given.
class Counted : public ::testing::Environment {
 public:
  void SetUp() override { count.emplace("rel-S3 hostile files refused in a second of processor time and 64 MB"); }
  void TearDown() override { count.reset(); }
  std::optional<SuiteCount> count;
};
Counted* const counted = dynamic_cast<Counted*>(::testing::AddGlobalTestEnvironment(new Counted));

void expect_refused(const ProcessResult& result, const Refusal& expected, const std::string& what) {
  const bool was_good = !::testing::Test::HasFailure();
  EXPECT_EQ(result.signal, 0) << what << ": " << result.err.substr(0, 2000);
  EXPECT_FALSE(result.timed_out) << what;
  EXPECT_EQ(result.exit_code, expected.exit_code) << what << ": " << result.err.substr(0, 2000);
  EXPECT_THAT(result.err.substr(0, 4000), HasSubstr(expected.message)) << what;
  EXPECT_LT(result.err.size(), 64u << 10) << what;
  EXPECT_FALSE(find_utf8_problem(result.err)) << what;
#ifndef GEMMA_SFT_SANITIZED
  EXPECT_LT(result.cpu_seconds, 1.0) << what;
  EXPECT_LT(result.peak_memory_bytes, 64 << 20) << what;
#endif
  counted->count->add(was_good && !::testing::Test::HasFailure());
}

class Hostile : public ::testing::Test {
 protected:
  void SetUp() override {
    const fs::path source = GEMMA_SFT_SOURCE_DIR;
    dir_.write("good/config.json", read_file(source / "tests/model/configs/gemma-3-1b-it.json"));
    dir_.write("good/tokenizer.model", read_file(source / "tests/data/fixtures/tiny_tokenizer.model"));
    dir_.write("rows.jsonl", "{\"prompt\":\"a\",\"response\":\"b\"}\n");
    dir_.write("c.yaml", "model: {base_model: good}\ndataset: {data_path: rows.jsonl}\n");
    ASSERT_EQ(::mkfifo((dir_ / "pipe").c_str(), 0600), 0);
  }

  // The good model folder with one file replaced.
  fs::path model_with(const std::string& name, const std::string& bytes) {
    const std::string folder = "model" + std::to_string(++models_);
    fs::create_directory(dir_ / folder);
    fs::copy_file(dir_ / "good/config.json", dir_ / folder / "config.json");
    fs::copy_file(dir_ / "good/tokenizer.model", dir_ / folder / "tokenizer.model");
    fs::remove(dir_ / folder / name);
    if (!bytes.empty()) dir_.write(folder + "/" + name, bytes);
    return dir_ / folder;
  }
  ProcessResult show(const std::string& config) { return run_limited(dir_, {"config", "show", "--config", config}); }
  ProcessResult generate(const fs::path& model) {
    return run_limited(dir_, {"generate", "--model", model.string(), "--prompt", "x"});
  }
  ProcessResult tokenize(const fs::path& model, const std::string& rows = "rows.jsonl") {
    return run_limited(dir_, {"tokenize", "--model", model.string(), "--input", rows, "--output", "out.jsonl"});
  }

  TempDir dir_;
  int models_ = 0;
};

TEST_F(Hostile, TheFilesThatTheOthersAreMadeOfAreGood) {
  EXPECT_EQ(show("c.yaml").exit_code, 0);
  const ProcessResult result = tokenize("good");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const ProcessResult explained = run_limited(dir_, {"explain", "--config", "c.yaml", "--row", "1"});
  EXPECT_EQ(explained.exit_code, 0) << explained.err;
}

TEST_F(Hostile, Configurations) {
  std::string aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n";  // nine levels of nine: 387 million values
  for (char c = 'b'; c <= 'i'; ++c) {
    aliases += std::string(1, c) + ": &" + c + " [" +
               repeated("*" + std::string(1, static_cast<char>(c - 1)) + ",", 9) + "]\n";
  }
  std::string chain = "k0: &k0 x\n";
  for (int i = 1; chain.size() < 250'000; ++i) {
    chain += "k" + std::to_string(i) + ": &k" + std::to_string(i) + " *k" + std::to_string(i - 1) + "\n";
  }
  std::string many_keys;
  for (int i = 0; many_keys.size() < 250'000; ++i) many_keys += "k" + std::to_string(i) + ": 1\n";
  std::string steps;
  for (size_t i = 0; steps.size() < 250'000; ++i) steps += std::string(i, ' ') + "a:\n";
  const struct {
    const char* name;
    std::string text;
    std::string message;
  } files[] = {
      {"alias bomb", aliases, "more than 10000 values"},
      {"cyclic alias", "a: &a\n  b: *a\n", "inside what it stands for"},
      {"alias of itself", "&a [*a]", "inside what it stands for"},
      {"chain of aliases", chain, "yaml:"},
      {"anchors", repeated("- &a x\n", 30'000), "more than 100 anchors"},
      {"flow lists", repeated("[", kDeep), "a key must be a word, not a list or a section"},
      {"flow lists in a key", "a: " + repeated("[", kDeep), "a key must be a word, not a list or a section"},
      {"flow maps", repeated("{a: ", kDeep / 2), "a key must be a word, not a list or a section"},
      {"flow maps without keys", repeated("{", kDeep), "yaml:1:"},
      {"flow pairs", repeated("[a: ", kDeep / 2), "a key must be a word, not a list or a section"},
      {"block lists", repeated("- ", kDeep), "nested deeper"},
      {"complex keys", repeated("? ", kDeep), "yaml:1:"},
      {"complex keys and lists", repeated("? - ", kDeep / 2), "yaml:1:"},
      {"steps", steps, "nested deeper"},
      {"values", repeated(": ", kDeep), "yaml:1:"},
      {"tags", repeated("!a ", 80'000), "yaml:1:"},
      {"quotes", repeated("'", kDeep - 1), "yaml:1:"},
      {"open quotes", "a: \"" + std::string(200'000, 'x'), "illegal EOF in scalar"},
      {"closed lists", "a: " + repeated("[", kDeep) + repeated("]", kDeep), "nested deeper"},
      {"closed maps", repeated("{a: ", 45'000) + repeated("}", 45'000), "nested deeper"},
      {"commas", "[" + repeated(",", 200'000), "yaml:1:"},
      {"documents", repeated("---\n", 60'000), "second YAML document"},
      {"directives", repeated("%YAML 1.2\n", 20'000), "yaml:"},
      {"many keys", many_keys, "more than 10000 values"},
      {"unknown keys", many_keys.substr(0, 40'000), "unknown key"},
      {"one key", std::string(200'000, 'k') + ": 1\n", "yaml:1:"},
      {"one value", "training:\n  seed: " + std::string(200'000, '9') + "\n", "training.seed"},
      {"too large", std::string(300'000, 'x'), "larger than 256 KiB"},
      {"carriage return", "\r", "model.base_model"},
      {"NUL in a name", "model: {base_model: \"good\\0x\"}\ndataset: {data_path: rows.jsonl}\n", "NUL byte"},
      {"NUL", std::string("a: \0", 4), "U+0000"},
  };
  for (const auto& file : files) {
    dir_.write("hostile.yaml", file.text);
    expect_refused(show("hostile.yaml"), {2, file.message}, file.name);
  }
  sparse_file(dir_, "hostile.yaml", "model:", kGigabyte);
  expect_refused(show("hostile.yaml"), {2, "larger than 256 KiB"}, "1 GB");
  sparse_file(dir_, "hostile.yaml", std::string(1 << 20, 'x'), kGigabyte);
  expect_refused(show("hostile.yaml"), {2, "larger than 256 KiB"}, "1 GB line of text");
  expect_refused(show("pipe"), {2, "pipe, socket or device"}, "pipe");
  expect_refused(show("/dev/zero"), {2, "pipe, socket or device"}, "device");
  expect_refused(show("good"), {2, "is a folder"}, "folder");
  dir_.write("hostile.yaml", std::string("\x80\x02}q\0.", 6));
  expect_refused(show("hostile.yaml"), {2, "hostile.yaml:1:1: "}, "pickle");
  for (const std::string& value :
       std::vector<std::string>{repeated("[", kDeep), repeated("{a: ", kDeep / 4), "&a [*a]", "\"\\0\""}) {
    expect_refused(run_limited(dir_, {"config", "show", "--config", "c.yaml", "--set", "lora.target_modules=" + value}),
                   {2, "--set"}, "--set " + value.substr(0, 10));
  }
}

TEST_F(Hostile, Manifests) {
  dir_.write("m.yaml", "model: {base_model: good}\ndataset: {manifest_path: m.json}\n");
  const auto dry_run = [&] { return run_limited(dir_, {"train", "--config", "m.yaml", "--dry-run"}); };
  const struct {
    const char* name;
    std::string text;
    std::string message;
  } files[] = {
      {"lists", repeated("[", kDeep), "levels of nesting"},
      {"maps", repeated("{\"a\":", kDeep), "levels of nesting"},
      {"closed lists", "{\"filters\":" + repeated("[", kDeep) + repeated("]", kDeep) + "}", "levels of nesting"},
      {"escapes", "{\"" + repeated("\\u0041", 1'000'000) + "\":1}", "expected in every manifest"},
      {"numbers", "{\"trace_count\":" + std::string(1'000'000, '9') + "}", "trace_count: expected a whole number"},
      {"carriage return", "\r", "m.json:1:2: manifest: expected a JSON value"},
      {"pickle", std::string("\x80\x02}q\0.", 6), "m.json:1:1: "},
  };
  for (const auto& file : files) {
    dir_.write("m.json", file.text);
    expect_refused(dry_run(), {3, file.message}, file.name);
  }
  constexpr uint64_t kLarge = 15'000'000;
  large_file(
      dir_, "m.json", "{\"trace_ids\":[", kLarge, [](size_t) { return "1,"; }, "1]}");
  expect_refused(dry_run(), {3, "more\n"}, "bad ids");
  large_file(
      dir_, "m.json", "{\"trace_ids\":[", kLarge, [](size_t) { return "\"a\","; }, "\"a\"]}");
  expect_refused(dry_run(), {3, "more\n"}, "equal ids");
  large_file(
      dir_, "m.json", "{", kLarge, [](size_t i) { return "\"m" + std::to_string(i) + "\":1,"; }, "\"x\":1}");
  expect_refused(dry_run(), {3, "members"}, "members");
  large_file(
      dir_, "m.json", "{\"dataset_key\":\"", kLarge, [](size_t) { return "xxxx"; }, "\"}");
  expect_refused(dry_run(), {3, "expected in every manifest"}, "a long text");
  sparse_file(dir_, "m.json", "{", kGigabyte);
  expect_refused(dry_run(), {3, "bytes long, expected at most"}, "1 GB");
  fs::remove(dir_ / "m.json");
  fs::rename(dir_ / "pipe", dir_ / "m.json");
  expect_refused(dry_run(), {3, "found a pipe"}, "pipe");
  fs::remove(dir_ / "m.json");
  fs::create_symlink("/dev/zero", dir_ / "m.json");
  expect_refused(dry_run(), {3, "found a device"}, "device");
}

TEST_F(Hostile, Rows) {
  const struct {
    const char* name;
    std::string text;
    std::string message;
  } files[] = {
      {"lists", repeated("[", kDeep), "1:257: row: expected at most 256 levels of nesting, found more"},
      {"maps", repeated("{\"a\":", kDeep), "1:1281: row: expected at most 256 levels of nesting, found more"},
      {"lists in a field", "{\"prompt\":\"a\",\"response\":\"b\",\"x\":" + repeated("[", kDeep), "levels of nesting"},
      {"after a good row", "{\"prompt\":\"a\",\"response\":\"b\"}\n" + repeated("{\"a\":[", kDeep), "2:769: row: "},
      {"a spaceless text", "{\"text\":\"" + std::string(600'000, 'x') + "\"}",
       "1:1: row: expected a line end or a space"},
      {"gzip", std::string("\x1f\x8b\x08\0\0", 5), "1:1: row: expected JSON text, found a gzip file"},
      {"pickle", std::string("\x80\x02}q\0.", 6), "1:1: row: expected JSON text, found this is a pickle"},
      {"torch.save", std::string("PK\x03\x04\0\0", 6), "1:1: row: expected JSON text, found a zip file"},
  };
  const auto explain = [&] { return run_limited(dir_, {"explain", "--config", "h.yaml", "--row", "2"}); };
  dir_.write("h.yaml", "model: {base_model: good}\ndataset: {data_path: hostile.jsonl}\n");
  for (const auto& file : files) {
    dir_.write("hostile.jsonl", file.text);
    expect_refused(tokenize("good", "hostile.jsonl"), {3, file.message}, file.name);
  }
  for (const char* start : {"", "{\"prompt\":\"", "{\"prompt\":\"a\",\"response\":\"b\"}\n"}) {
    sparse_file(dir_, "hostile.jsonl", start, kGigabyte);
    expect_refused(tokenize("good", "hostile.jsonl"), {3, "expected at most 67108864 bytes in a line, found more"},
                   start);
    expect_refused(explain(), {3, "found more"}, start);
  }
  expect_refused(tokenize("good", "pipe"), {9, "found a pipe"}, "pipe");
  expect_refused(tokenize("good", "/dev/zero"), {9, "found a device"}, "device");
  expect_refused(tokenize("good", "good"), {9, "found a folder"}, "folder");
}

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

TEST_F(Hostile, Checkpoints) {
  const auto verify = [&] { return run_limited(dir_, {"verify", "checkpoint-3"}); };
  const std::string digest(64, '0');
  const auto with = [&](const std::string& step, const std::string& files) {
    return R"({"format":"gemma-sft checkpoint","version":1,"run_id":"r","step":)" + step + ",\"files\":" + files + "}";
  };
  const struct {
    const char* name;
    std::string text;
    std::string message;
  } files[] = {
      {"lists", repeated("[", kDeep), "levels of nesting"},
      {"maps", repeated("{\"files\":", kDeep), "levels of nesting"},
      {"values", "[" + repeated("0,", 500'000) + "0]", "manifest.json"},
      {"version", R"({"format":"gemma-sft checkpoint","version":4294967297})", "format version 4294967297"},
      {"step", with("18446744073709551619", R"({"a":{"bytes":1,"sha256":"x"}})"), "step: expected a whole number"},
      {"fraction", with("1e300", R"({"a":{"bytes":1,"sha256":"x"}})"), "step: expected a whole number"},
      {"parent", with("3", R"({"../rows.jsonl":{"bytes":1,"sha256":")" + digest + "\"}}"), "is not a file name"},
      {"absolute", with("3", R"({"/dev/zero":{"bytes":1,"sha256":")" + digest + "\"}}"), "is not a file name"},
      {"NUL", with("3", R"({"a\u0000b":{"bytes":1,"sha256":")" + digest + "\"}}"), "is not a file name"},
      {"terminal", with("3", R"({"a\u001b[2J":{"bytes":1,"sha256":")" + digest + "\"}}"), "is not a file name"},
      {"carriage return", "\r", "expected a JSON value"},
      {"empty", "\n", "expected a JSON value"},
      {"pickle", std::string("\x80\x02}q\0.", 6), "manifest.json: byte 0"},
  };
  for (const auto& file : files) {
    dir_.write("checkpoint-3/manifest.json", file.text);
    expect_refused(verify(), {13, file.message}, file.name);
  }
  sparse_file(dir_, "checkpoint-3/manifest.json", "{", kGigabyte);
  expect_refused(verify(), {13, "expected at most"}, "1 GB");
  dir_.write("checkpoint-3/manifest.json", with("3", R"({"a":{"bytes":0,"sha256":")" + digest + "\"}}"));
  ASSERT_EQ(::mkfifo((dir_ / "checkpoint-3/a").c_str(), 0600), 0);
  expect_refused(verify(), {13, "a: is not a plain file"}, "pipe");
  fs::remove(dir_ / "checkpoint-3/a");
  fs::create_symlink("../rows.jsonl", dir_ / "checkpoint-3/a");
  expect_refused(verify(), {13, "a: is not a plain file"}, "link");
  fs::rename(dir_ / "checkpoint-3/manifest.json", dir_ / "manifest.json");
  fs::create_symlink("../manifest.json", dir_ / "checkpoint-3/manifest.json");
  expect_refused(verify(), {13, "manifest.json: is not a plain file"}, "linked manifest");
  fs::remove(dir_ / "checkpoint-3/manifest.json");
  fs::rename(dir_ / "pipe", dir_ / "checkpoint-3/manifest.json");
  expect_refused(verify(), {13, "manifest.json: is not a plain file"}, "manifest pipe");
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
