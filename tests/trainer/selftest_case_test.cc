#include "trainer/selftest_case.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "configs/error.h"
#include "tests/trainer/case_files.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::StartsWith;

const char* const kTolerances = R"({"name": "x", "tolerances": {"logits_abs": 0, "loss_abs": 1e-5, "grad_rel": 0.1}})";

struct Refusal {
  ErrorKind kind = ErrorKind::kInternal;
  std::string message = "nothing was thrown";
};

Refusal refusal_of(const fs::path& folder) {
  try {
    read_selftest_case(folder);
  } catch (const Error& error) {
    return {error.kind(), error.what()};
  }
  return {};
}

TEST(SelftestCase, EveryShippedCaseIsRead) {
  const std::vector<fs::path> folders = find_selftest_cases(kGoldenFolder);
  EXPECT_GE(folders.size(), 5u);
  for (const fs::path& folder : folders) {
    const SelftestCase read = read_selftest_case(folder);
    EXPECT_EQ(read.name, folder.filename().string());
    EXPECT_GT(read.tolerances.logits_abs, 0);
    EXPECT_GE(read.rows.size(), 2u);
    EXPECT_NE(read.rows.front().input_ids.size(), read.rows.back().input_ids.size()) << "not ragged";
    EXPECT_GE(read.gradients.size(), 20u);
    EXPECT_EQ(read.logits(1, 1, 2).size(), static_cast<size_t>(2 * read.config.vocab_size));
  }
}

TEST(SelftestCase, ReadsWhatStandsInTheFiles) {
  const TempDir dir;
  CaseFiles files;
  files.json = kTolerances;
  const int64_t vocabulary = files.tensors["logits"].shape[2], time = files.tensors["logits"].shape[1];
  files.tensors["logits"].values<float>()[(time + 2) * vocabulary + 5] = 42;
  files.tensors["loss"].values<float>()[0] = 1.5;
  files.tensors["lengths"].values<int64_t>()[1] = 4;
  // Nothing past a length counts, not even what could not be an id.
  files.tensors["input_ids"].values<int64_t>()[time + 4] = -100;
  files.tensors["input_ids"].values<int64_t>()[time + 3] = 7;
  files.tensors["loss_mask"].values<uint8_t>()[time + 3] = 1;
  files.tensors["loss_mask"].values<uint8_t>()[time + 4] = 9;
  files.tensors["something else"] = {TensorDtype::kU8, {1}, {0}};
  const SelftestCase read = read_selftest_case(files.write(dir));
  EXPECT_EQ(read.name, "x");
  EXPECT_EQ(read.tolerances.logits_abs, 0);
  EXPECT_EQ(read.tolerances.loss_abs, 1e-5);
  EXPECT_EQ(read.tolerances.grad_rel, 0.1);
  EXPECT_EQ(read.loss, 1.5f);
  EXPECT_EQ(read.time, time);
  ASSERT_EQ(read.rows[1].input_ids.size(), 4u);
  EXPECT_EQ(read.rows[1].input_ids[3], 7);
  EXPECT_EQ(read.rows[1].loss_mask[3], 1);
  EXPECT_EQ(read.logits(1, 2, 1)[5], 42);
}

TEST(SelftestCase, GradientsHaveHuggingFacesNames) {
  const TempDir dir;
  CaseFiles tied;
  tied.tensors["grad.lm_head.weight"] = tied.tensors["grad.model.embed_tokens.weight"];
  tied.tensors.erase("grad.model.embed_tokens.weight");
  bool found = false;
  for (const auto& gradient : read_selftest_case(tied.write(dir)).gradients) {
    found |= gradient.name == "lm_head.weight" && gradient.parameter == "model.embed_tokens.weight";
  }
  EXPECT_TRUE(found);

  const SelftestCase image_text = read_selftest_case(golden_case(/*image_text=*/true));
  for (const auto& gradient : image_text.gradients) {
    EXPECT_THAT(gradient.name, HasSubstr("language_model"));
    EXPECT_THAT(gradient.parameter, testing::Not(HasSubstr("language_model")));
  }
}

TEST(SelftestCase, APartOfTheGradientsWillDoAndTheOthersAreNamed) {
  const TempDir dir;
  CaseFiles files;
  EXPECT_THAT(read_selftest_case(files.write(dir)).without_gradient, testing::IsEmpty());
  files.tensors.erase("grad.model.norm.weight");
  EXPECT_THAT(read_selftest_case(files.write(dir)).without_gradient, testing::ElementsAre("model.norm.weight"));
  std::erase_if(files.tensors, [](const auto& entry) { return entry.first.starts_with("grad."); });
  EXPECT_THAT(refusal_of(files.write(dir)).message, HasSubstr("there is no tensor grad."));
}

TEST(SelftestCase, AWrongExpectedFileIsRefusedByTensorAndPlace) {
  using Change = std::function<void(CaseFiles&)>;
  const auto tensor = [](const std::string& name, CaseFiles::Tensor value) -> Change {
    return [=](CaseFiles& files) { files.tensors[name] = value; };
  };
  const auto without = [](const std::string& name) -> Change {
    return [=](CaseFiles& files) { files.tensors.erase(name); };
  };
  const std::pair<Change, std::string> changes[] = {
      {without("input_ids"), "input_ids is missing"},
      {without("lengths"), "lengths is missing"},
      {without("loss_mask"), "loss_mask is missing"},
      {without("logits"), "logits is missing"},
      {without("loss"), "loss is missing"},
      {tensor("grad.model.layers.99.mlp.up_proj.weight", {TensorDtype::kF32, {1}, std::vector<char>(4)}),
       "grad.model.layers.99.mlp.up_proj.weight: the text model has no weight of this name"},
      {tensor("grad.model.norm.weight", {TensorDtype::kF32, {1}, std::vector<char>(4)}),
       "grad.model.norm.weight: shape [1], expected ["},
      {tensor("loss", {TensorDtype::kF64, {}, std::vector<char>(8)}), "loss: dtype F64, expected F32"},
      {tensor("loss", {TensorDtype::kF32, {2}, std::vector<char>(8)}), "loss: shape [2], expected []"},
      {tensor("lengths", {TensorDtype::kI64, {1}, std::vector<char>(8)}), "lengths: shape [1], expected ["},
      {tensor("input_ids", {TensorDtype::kI64, {8}, std::vector<char>(64)}), "expected [batch, time]"},
      {tensor("input_ids", {TensorDtype::kI64, {0, 8}, {}}), "expected [batch, time]"},
      {[](CaseFiles& files) { files.tensors["logits"].shape.push_back(1); }, "logits: shape ["},
      {[](CaseFiles& files) { files.tensors["input_ids"].dtype = TensorDtype::kF64; }, "input_ids: dtype F64"},
      {[](CaseFiles& files) { files.tensors["loss_mask"].dtype = TensorDtype::kBool; }, "loss_mask: dtype BOOL"},
      {[](CaseFiles& files) { files.tensors["grad.model.norm.weight"].dtype = TensorDtype::kI32; }, "dtype I32"},
      {[](CaseFiles& files) { files.tensors["input_ids"].values<int64_t>()[2] = 1 << 20; },
       "input_ids[0, 2] is 1048576; expected 0 to "},
      {[](CaseFiles& files) { files.tensors["input_ids"].values<int64_t>()[0] = -1; }, "input_ids[0, 0] is -1"},
      {[](CaseFiles& files) { files.tensors["lengths"].values<int64_t>()[0] = 1 << 20; }, "lengths[0] is 1048576"},
      {[](CaseFiles& files) { files.tensors["lengths"].values<int64_t>()[1] = 0; }, "lengths[1] is 0; expected 1 to"},
      {[](CaseFiles& files) { files.tensors["loss_mask"].values<uint8_t>()[3] = 2; }, "loss_mask[0, 3] is 2"},
      {[](CaseFiles& files) {
         auto& mask = files.tensors["loss_mask"];
         std::fill(mask.bytes.begin(), mask.bytes.end(), '\0');
         for (int64_t row = 0; row < mask.shape[0]; ++row) mask.values<uint8_t>()[row * mask.shape[1]] = 1;
       },
       "no token after a row's first one is a target"},
  };
  const TempDir dir;
  for (const auto& [change, says] : changes) {
    CaseFiles files;
    change(files);
    const Refusal refusal = refusal_of(files.write(dir));
    EXPECT_EQ(refusal.kind, ErrorKind::kData) << says;
    EXPECT_THAT(refusal.message, HasSubstr(says));
    EXPECT_THAT(refusal.message, StartsWith((dir / "case/expected.safetensors").string())) << says;
  }
}

TEST(SelftestCase, AWrongDescriptionIsRefusedByName) {
  const std::pair<const char*, const char*> texts[] = {
      {"", "case.json:1:1: expected"},
      {"[]", "expected a JSON object"},
      {R"({"tolerances": {"logits_abs": 1, "loss_abs": 1, "grad_rel": 1}})", "\"name\" is missing"},
      {R"({"name": "x"})", "\"tolerances\" is missing"},
      {R"({"name": "x", "tolerances": 1})", "\"tolerances\" is missing"},
      {R"({"name": "x", "tolerances": {"loss_abs": 1, "grad_rel": 1}})", "\"tolerances.logits_abs\" is missing"},
      {R"({"name": "x", "tolerances": {"logits_abs": 1, "loss_abs": null, "grad_rel": 1}})", "loss_abs\" is missing"},
      {R"({"name": "x", "tolerances": {"logits_abs": 1, "loss_abs": 1, "grad_rel": -1e-9}})", "grad_rel\" is"},
      {R"({"name": "x", "tolerances": {"logits_abs": NaN, "loss_abs": 1, "grad_rel": 1}})", "case.json:1:"},
      {R"({"name": "x", "tolerances": {"logits_abs": 1e999, "loss_abs": 1, "grad_rel": 1}})", "logits_abs\" is"},
      {R"({"name": "x", "tolerances": {"logits_abs": "1", "loss_abs": 1, "grad_rel": 1}})", "logits_abs\" is"},
  };
  const TempDir dir;
  CaseFiles files;
  for (const auto& [text, says] : texts) {
    files.json = text;
    const Refusal refusal = refusal_of(files.write(dir));
    EXPECT_EQ(refusal.kind, ErrorKind::kData) << text;
    EXPECT_THAT(refusal.message, HasSubstr(says)) << text;
  }
}

TEST(SelftestCase, AbsentAndBrokenPartsAreNamed) {
  const TempDir dir;
  EXPECT_EQ(refusal_of(dir / "gone").kind, ErrorKind::kData);
  EXPECT_THAT(refusal_of(dir / "gone").message, HasSubstr("gone: not found"));
  const CaseFiles files;
  const fs::path folder = files.write(dir);
  const std::string bytes = read_file(folder / "expected.safetensors");
  for (size_t length : {size_t{0}, size_t{7}, size_t{100}, bytes.size() - 1}) {
    dir.write("case/expected.safetensors", bytes.substr(0, length));
    EXPECT_EQ(refusal_of(folder).kind, ErrorKind::kData) << length;
  }
  fs::remove(folder / "expected.safetensors");
  EXPECT_THAT(refusal_of(folder).message, HasSubstr("expected.safetensors: not found"));
  fs::remove(folder / "case.json");
  EXPECT_THAT(refusal_of(folder).message, HasSubstr("case.json: not found"));

  const fs::path other = files.write(dir, "other");
  fs::remove(other / "model");
  EXPECT_EQ(refusal_of(other).kind, ErrorKind::kModel);
  fs::create_directory(other / "model");
  std::string config = read_file(files.model / "config.json");
  config.insert(config.find('{') + 1, "\"quantization_config\": {\"bits\": 4},");
  dir.write("other/model/config.json", config);
  EXPECT_THAT(refusal_of(other).message, HasSubstr("quantization_config"));
  dir.write("other/model/config.json", read_file(files.model / "config.json"));
  EXPECT_EQ(refusal_of(other).kind, ErrorKind::kModel);  // no weights
}

TEST(SelftestCase, AFolderThatCannotBeListedIsNotCalledEmpty) {
  const TempDir dir;
  try {
    find_selftest_cases(dir.write("file", ""));
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kIo);
    EXPECT_THAT(error.what(), HasSubstr("file: cannot list"));
  }
}

TEST(SelftestCase, AFolderWithoutCasesIsRefused) {
  const TempDir dir;
  EXPECT_THROW(find_selftest_cases(dir.path()), Error);
  EXPECT_THROW(find_selftest_cases(dir / "gone"), Error);
}

}  // namespace
}  // namespace gemma_sft
