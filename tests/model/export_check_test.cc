#include "model/export_check.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "data/files/digest_list.h"
#include "data/files/file_system.h"
#include "data/files/safetensors.h"
#include "data/files/sha256.h"
#include "model/adapter_config.h"
#include "model/model_init.h"
#include "tests/testing/temp_dir.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

struct Tensor {
  std::string name;
  std::vector<int64_t> shape;
};

class ExportCheck : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(dir_ / "tokenizer");
    fs::copy_file(fs::path(GEMMA_SFT_SOURCE_DIR) / "tests/data/fixtures/tiny_tokenizer.model",
                  dir_ / "tokenizer/tokenizer.model");
    dir_.write("tokenizer/tokenizer_config.json", R"({"chat_template": "{{ '<start_of_turn>' }}"})");
    init_model_folder(*find_preset("tiny-gemma-3"), dir_ / "tokenizer", dir_ / "model", ModelDtype::kBf16, 1,
                      real_file_system());
    list_digests("model");
    make_adapter({"q_proj", "down_proj"}, pairs_of({"self_attn.q_proj", "mlp.down_proj"}));
  }

  void list_digests(const std::string& folder) {
    fs::remove(dir_ / folder / kDigestListName);
    std::map<std::string, std::string> digests;
    for (const auto& entry : fs::directory_iterator(dir_ / folder)) {
      digests[entry.path().filename().string()] = sha256_file(entry.path());
    }
    write_digest_list(real_file_system(), dir_ / folder, digests);
  }

  // A and B of rank 2 for these layers of each block of the tiny model.
  static std::vector<Tensor> pairs_of(const std::vector<std::string>& layers) {
    std::vector<Tensor> tensors;
    for (int block = 0; block < 6; ++block) {
      for (const std::string& layer : layers) {
        const std::string path = "base_model.model.model.layers." + std::to_string(block) + "." + layer;
        tensors.push_back({path + ".lora_A.weight", {2, layer == "mlp.down_proj" ? 256 : 64}});
        tensors.push_back({path + ".lora_B.weight", {64, 2}});
      }
    }
    return tensors;
  }

  void make_adapter(const std::vector<std::string>& targets, const std::vector<Tensor>& tensors,
                    const std::string& base = "../model") {
    fs::remove_all(dir_ / "adapter");
    fs::create_directory(dir_ / "adapter");
    dir_.write("adapter/adapter_config.json",
               to_adapter_config_json({.rank = 2, .alpha = 4, .target_modules = {}}, {base}, targets));
    std::vector<TensorSource> sources;
    for (const Tensor& tensor : tensors) {
      auto values = std::make_shared<std::vector<float>>(tensor.shape[0] * tensor.shape[1], 0.5f);
      sources.push_back({tensor.name, TensorDtype::kF32, tensor.shape,
                         [values] { return static_cast<const void*>(values->data()); }});
    }
    write_safetensors(real_file_system(), dir_ / "adapter/adapter_model.safetensors", sources);
    list_digests("adapter");
  }

  void replace(const std::string& file, const std::string& old_text, const std::string& new_text) {
    std::string text = read_file(dir_ / file);
    const size_t at = text.find(old_text);
    ASSERT_NE(at, std::string::npos) << file << " has no " << old_text;
    dir_.write(file, text.replace(at, old_text.size(), new_text));
  }

  // Overwrites the last number of the tensor that lies last in the file.
  void set_last_bytes(const std::string& file, const std::string& bytes) {
    std::string text = read_file(dir_ / file);
    dir_.write(file, text.replace(text.size() - bytes.size(), bytes.size(), bytes));
  }

  std::vector<std::string> problems(const std::string& folder) { return verify_export(dir_ / folder).problems; }

  TempDir dir_;
};

TEST_F(ExportCheck, GoodFoldersVerify) {
  const ExportVerdict model = verify_export(dir_ / "model");
  EXPECT_THAT(model.problems, IsEmpty());
  EXPECT_THAT(model.notes, IsEmpty());
  EXPECT_FALSE(model.adapter);
  EXPECT_EQ(model.tensors, 2u + 6u * 13u);
  EXPECT_EQ(model.digests, 5u);
  const ExportVerdict adapter = verify_export(dir_ / "adapter");
  EXPECT_THAT(adapter.problems, IsEmpty());
  EXPECT_THAT(adapter.notes, IsEmpty());
  EXPECT_TRUE(adapter.adapter);
  EXPECT_EQ(adapter.tensors, 24u);
  EXPECT_EQ(adapter.tensor_bytes, 6u * 4u * (2u * 64u + 64u * 2u + 2u * 256u + 64u * 2u));
  EXPECT_EQ(adapter.digests, 2u);
}

TEST_F(ExportCheck, AFlippedBitIsFoundByDigest) {
  for (const char* name : {"model/model.safetensors", "model/config.json", "adapter/adapter_model.safetensors"}) {
    std::string bytes = read_file(dir_ / name);
    const std::string before = bytes;
    bytes[bytes.size() - 3] = static_cast<char>(bytes[bytes.size() - 3] ^ 1);
    dir_.write(name, bytes);
    EXPECT_THAT(problems(fs::path(name).parent_path()), ::testing::Contains(HasSubstr("it was changed since"))) << name;
    dir_.write(name, before);
  }
  fs::remove(dir_ / "model/generation_config.json");
  EXPECT_THAT(problems("model"), ElementsAre(HasSubstr("is in SHA256SUMS and not in the folder")));
}

TEST_F(ExportCheck, AListThatLeavesOutTheWeightsIsNoList) {
  for (const char* folder : {"model", "adapter"}) {
    dir_.write((fs::path(folder) / kDigestListName).string(), "");
    EXPECT_THAT(problems(folder), ElementsAre(HasSubstr("model.safetensors: is not named in SHA256SUMS")));
  }
}

TEST_F(ExportCheck, NamesForgeNoLineAndMakeNoEndlessMessage) {
  dir_.write("model/model\x1b\n\x9b.safetensors", "");
  EXPECT_THAT(problems("model"), ::testing::Each(HasSubstr("model\\u001b\\n\\x9b.safetensors: is no")));
  std::string config = read_file(dir_ / "adapter/adapter_config.json");
  const std::string key = "\"base_model_name_or_path\": \"";
  config.insert(config.find(key) + key.size(), R"(x\u001b[2J\n)" + std::string(900'000, 'x'));
  dir_.write("adapter/adapter_config.json", config);
  list_digests("adapter");
  const ExportVerdict verdict = verify_export(dir_ / "adapter");
  EXPECT_THAT(verdict.problems, IsEmpty());
  ASSERT_THAT(verdict.notes, ::testing::Contains(HasSubstr("the base x\\u001b[2J\\nxxx")));
  for (const std::string& note : verdict.notes) EXPECT_LT(note.size(), 1000u);
}

TEST_F(ExportCheck, WithoutDigestsTheRestIsStillRead) {
  fs::remove(dir_ / "model" / kDigestListName);
  const ExportVerdict verdict = verify_export(dir_ / "model");
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_EQ(verdict.digests, 0u);
  EXPECT_THAT(verdict.notes, ElementsAre(HasSubstr("digests were not checked")));
}

// With one file more than are open now, which the weights take, nothing is left to list the folder with.
TEST_F(ExportCheck, AFolderThatCannotBeListedIsNoFolderWithoutStrayWeights) {
  const int next = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(next, 0);
  ::close(next);
  rlimit old_limit;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old_limit), 0);
  const rlimit one_more = {static_cast<rlim_t>(next) + 1, old_limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &one_more), 0);
  const std::vector<std::string> found = problems("model");
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old_limit), 0);
  EXPECT_THAT(found, ::testing::Contains(HasSubstr("model: cannot list: Too many open files")));
}

TEST_F(ExportCheck, WeightsOneFolderDownAreNoted) {
  fs::create_directory(dir_ / "model/other");
  EXPECT_THAT(verify_export(dir_ / "model").notes, IsEmpty());
  fs::copy_file(dir_ / "model/model.safetensors", dir_ / "model/other/model.safetensors");
  const ExportVerdict verdict = verify_export(dir_ / "model");
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_THAT(verdict.notes, ElementsAre(HasSubstr("other holds weights, too")));
}

TEST_F(ExportCheck, WhatAChatWouldMissIsNoted) {
  fs::remove(dir_ / "model" / kDigestListName);
  const auto notes_with = [&](const std::string& name, const std::string& bytes) {
    const std::string before = read_file(dir_ / "model" / name);
    dir_.write("model/" + name, bytes);
    const ExportVerdict verdict = verify_export(dir_ / "model");
    dir_.write("model/" + name, before);
    EXPECT_THAT(verdict.problems, IsEmpty());
    return verdict.notes;
  };
  EXPECT_THAT(notes_with("tokenizer_config.json", "{}"), ::testing::Contains(HasSubstr("there is no chat template")));
  EXPECT_THAT(notes_with("tokenizer_config.json", R"({"chat_template": "<|im_start|>"})"),
              ::testing::Contains(HasSubstr("is not Gemma's")));
  EXPECT_THAT(notes_with("generation_config.json", R"({"eos_token_id": 1})"),
              ::testing::Contains(HasSubstr("does not have <end_of_turn>")));
}

TEST_F(ExportCheck, RanksThatAreScaledByTheirRootAreNotedForTheConverterThatDoesNotReadIt) {
  fs::remove(dir_ / "adapter" / kDigestListName);
  std::string config = read_file(dir_ / "adapter/adapter_config.json");
  config.replace(config.find("\"use_rslora\": false"), 19, "\"use_rslora\": true");
  dir_.write("adapter/adapter_config.json", config);
  EXPECT_THAT(verify_export(dir_ / "adapter").notes, ::testing::Contains(HasSubstr("llama.cpp")));
}

struct Damage {
  const char* says;
  std::function<void()> make;
};

TEST_F(ExportCheck, OfAModelEachThingThatAnotherProgramTripsOverIsNamed) {
  const std::vector<Damage> damages = {
      {"1 number is NaN or infinite", [&] { set_last_bytes("model/model.safetensors", std::string("\x80\x7f", 2)); }},
      {"1 number is NaN or infinite", [&] { set_last_bytes("model/model.safetensors", std::string("\xc1\xff", 2)); }},
      {"\"architectures\": expected the name", [&] { replace("model/config.json", "\"Gemma3ForCausalLM\"", ""); }},
      {"expected \"Gemma3ForCausalLM\"",
       [&] { replace("model/config.json", "\"Gemma3ForCausalLM\"", "\"GemmaForCausalLM\""); }},
      {"transformers would convert them",
       [&] {
         replace("model/config.json", "\"dtype\": \"bfloat16\"", "\"dtype\": \"float32\"");
         replace("model/config.json", "\"torch_dtype\": \"bfloat16\"", "\"torch_dtype\": \"float32\"");
       }},
      {"the weights are not those",
       [&] { replace("model/config.json", "\"hidden_size\": 64", "\"hidden_size\": 32"); }},
      {"neither model.safetensors nor", [&] { fs::remove(dir_ / "model/model.safetensors"); }},
      {"is no part of the model",
       [&] { fs::copy_file(dir_ / "model/model.safetensors", dir_ / "model/model-00001-of-00002.safetensors"); }},
      {"tokenizer", [&] { fs::remove(dir_ / "model/tokenizer.model"); }},
      {"\"eos_token_id\": expected an id",
       [&] { replace("model/generation_config.json", "\"eos_token_id\": [", "\"eos_token_id\": [99999,"); }},
      {"SHA256SUMS:1: \"nonsense\"", [&] { dir_.write("model/SHA256SUMS", "nonsense\n"); }},
      {"SHA256SUMS:1",
       [&] { dir_.write("model/SHA256SUMS", std::string(64, '0') + "  ../tokenizer/tokenizer.model\n"); }},
  };
  for (const Damage& damage : damages) {
    fs::remove_all(dir_ / "good");
    fs::rename(dir_ / "model", dir_ / "good");
    fs::copy(dir_ / "good", dir_ / "model");
    damage.make();
    if (fs::exists(dir_ / "model" / kDigestListName) && std::string(damage.says).find("SHA256") == std::string::npos) {
      list_digests("model");
    }
    const std::vector<std::string> found = problems("model");
    ASSERT_EQ(found.size(), 1u) << damage.says << ": " << ::testing::PrintToString(found);
    EXPECT_THAT(found.front(), HasSubstr(damage.says));
    fs::remove_all(dir_ / "model");
    fs::rename(dir_ / "good", dir_ / "model");
  }
}

TEST_F(ExportCheck, OfAnAdapterEachThingThatPeftOrVllmTripsOverIsNamed) {
  const auto tensors_with = [&](size_t index, const Tensor& tensor) {
    std::vector<Tensor> tensors = pairs_of({"self_attn.q_proj"});
    tensors[index] = tensor;
    return tensors;
  };
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj";
  std::vector<Tensor> without_b = pairs_of({"self_attn.q_proj"});
  without_b.pop_back();
  std::vector<Tensor> without_layer = pairs_of({"self_attn.q_proj"});
  without_layer.erase(without_layer.begin(), without_layer.begin() + 2);
  const std::vector<Damage> damages = {
      {"lora_B is missing", [&] { make_adapter({"q_proj"}, without_b); }},
      {"\"r\" is 2",
       [&] {
         make_adapter({"q_proj"}, tensors_with(0, {q + ".lora_A.weight", {3, 64}}));
       }},
      {"do not fit the base's",
       [&] {
         make_adapter({"q_proj"}, tensors_with(0, {q + ".lora_A.weight", {2, 63}}));
       }},
      {"has no matrices", [&] { make_adapter({"q_proj"}, without_layer); }},
      {"\"target_modules\" does not mean this layer",
       [&] {
         make_adapter(
             {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.2.self_attn.q_proj",
              "model.layers.3.self_attn.q_proj", "model.layers.4.self_attn.q_proj"},
             pairs_of({"self_attn.q_proj"}));
       }},
      {"refuse it",
       [&] {
         std::vector<Tensor> more = pairs_of({"self_attn.q_proj"});
         more.push_back({"base_model.model.model.embed_tokens.weight", {4, 4}});
         make_adapter({"q_proj"}, more);
       }},
      {"1 number is NaN", [&] { set_last_bytes("adapter/adapter_model.safetensors", std::string("\0\0\xc0\x7f", 4)); }},
      {"not found", [&] { fs::remove(dir_ / "adapter/adapter_model.safetensors"); }},
      {"\"use_dora\"", [&] { replace("adapter/adapter_config.json", "\"use_dora\": false", "\"use_dora\": true"); }},
  };
  for (const Damage& damage : damages) {
    make_adapter({"q_proj"}, pairs_of({"self_attn.q_proj"}));
    damage.make();
    list_digests("adapter");
    const std::vector<std::string> found = problems("adapter");
    ASSERT_EQ(found.size(), 1u) << damage.says << ": " << ::testing::PrintToString(found);
    EXPECT_THAT(found.front(), HasSubstr(damage.says));
  }
}

TEST_F(ExportCheck, ABaseThatIsElsewhereIsNoted) {
  make_adapter({"q_proj"}, pairs_of({"self_attn.q_proj"}), "google/gemma-3-270m");
  const ExportVerdict verdict = verify_export(dir_ / "adapter");
  EXPECT_THAT(verdict.problems, IsEmpty());
  EXPECT_THAT(verdict.notes, ElementsAre(HasSubstr("the base google/gemma-3-270m is not here")));
}

TEST_F(ExportCheck, ADigestListIsThatOfSha256sum) {
  dir_.write("x/a", "abc");
  write_digest_list(real_file_system(), dir_ / "x", {{"a", sha256_hex("abc")}});
  EXPECT_EQ(read_file(dir_ / "x/SHA256SUMS"),  // printf abc | sha256sum
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n");
  EXPECT_EQ(find_digest_list(dir_ / "x")->at("a"), sha256_hex("abc"));
}

}  // namespace
}  // namespace gemma_sft
