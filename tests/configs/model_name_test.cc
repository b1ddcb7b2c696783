#include "configs/model_name.h"

#include <gtest/gtest.h>

#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

TEST(ModelName, HubIdsAndFoldersAreToldApart) {
  for (const char* name : {"google/gemma-2b-it", "gemma-2b", "distilgpt2", "a_b/c.d-e"}) {
    EXPECT_TRUE(can_be_hub_id(name)) << name;
  }
  for (const char* name : {"./gemma", "../gemma", "/models/gemma", "a/b/c", "model/", "", "my model"}) {
    EXPECT_FALSE(can_be_hub_id(name)) << name;
  }
}

TEST(ModelName, GemmaModelsAndFoldersPass) {
  for (const char* name :
       {"google/gemma-2b-it", "google/gemma-1.1-7b-it", "google/gemma-2-2b", "google/gemma-3-4b-it",
        "google/codegemma-2b", "google/shieldgemma-2b", "google/medgemma-4b-it", "unsloth/Gemma-3-1B",
        "me/gemma-4b-tuned", "./distilgpt2", "/models/llama", "runs/a/final_model"}) {
    EXPECT_EQ(model_name_problem(name, "c.yaml"), "") << name;
  }
}

TEST(ModelName, OtherModelsAreRefusedByName) {
  EXPECT_EQ(model_name_problem("distilgpt2", "c.yaml"),
            "expected a Gemma model, found \"distilgpt2\", which is no folder and does not name one "
            "on the hub; use the id of a Gemma 1, 1.1, 2 or 3 model such as google/gemma-3-1b-it, or "
            "write a folder as ./distilgpt2");
  EXPECT_NE(model_name_problem("meta-llama/Llama-3.2-1B", "c.yaml"), "");
  const std::pair<const char*, const char*> relatives[] = {{"google/gemma-3n-E2B-it", "Gemma 3n"},
                                                           {"google/gemma-4-E4B-it", "Gemma 4"},
                                                           {"google/gemma-4", "Gemma 4"},
                                                           {"google/paligemma2-3b-pt-224", "PaliGemma"},
                                                           {"google/recurrentgemma-2b", "RecurrentGemma"},
                                                           {"google/t5gemma-s-s-ul2", "T5Gemma"},
                                                           {"google/embeddinggemma-300m", "EmbeddingGemma"}};
  for (const auto& [name, what] : relatives) {
    const std::string problem = model_name_problem(name, "c.yaml");
    EXPECT_NE(problem.find(what), std::string::npos) << name << ": " << problem;
  }
}

TEST(ModelName, AFolderOfAnyNameIsJudgedLater) {
  const ConfigFolder folder;
  std::filesystem::create_directories(folder.path() / "runs/model");
  const std::filesystem::path config = folder.write("configs/c.yaml", kBase);
  EXPECT_EQ(model_name_problem("runs/model", config), "");
  EXPECT_NE(model_name_problem("runs/absent", config), "");
}

}  // namespace
}  // namespace gemma_sft
