// Bombs, broken sizes, pickles, links, pipes and devices as files of a run: configurations, manifests, rows,
// checkpoints.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/e2e/hostile.h"

namespace gemma_sft {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

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

}  // namespace
}  // namespace gemma_sft
