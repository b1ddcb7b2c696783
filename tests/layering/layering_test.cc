// The floors of the house, checked on the #include lines: configs < data < model < trainer/checkpoint < trainer <
// trainer/cli, with trainer/run beside the model (it shows and records, and knows no model). And torch stays where it
// belongs: what must start in milliseconds does not include it, not even through another header.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct Include {
  std::string target;
  bool quoted = false;
};
using Tree = std::map<std::string, std::vector<Include>>;  // path below the root -> what it includes

bool starts_with_any(std::string_view path, const std::vector<std::string>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [&](const std::string& prefix) { return path.starts_with(prefix); });
}

bool is_header(std::string_view path) { return path.ends_with(".h"); }

bool is_torch(const Include& include) {
  return !include.quoted && starts_with_any(include.target, {"torch/", "ATen/", "c10/"});
}

// Headers that bring most of LibTorch: seconds per file that includes them.
const std::set<std::string> kBigTorchHeaders = {"ATen/ATen.h",
                                                "ATen/Functions.h",
                                                "ATen/NativeFunctions.h",
                                                "torch/all.h",
                                                "torch/cuda.h",
                                                "torch/data.h",
                                                "torch/nn.h",
                                                "torch/optim.h",
                                                "torch/autograd.h",
                                                "torch/script.h",
                                                "torch/nn/module.h",
                                                "torch/types.h",
                                                "torch/csrc/autograd/custom_function.h"};

// Files above that know no torch, so that the torch-free program can use them.
const std::vector<std::string> kTorchFree = {"configs/",
                                             "data/",
                                             "model/gemma_config.",
                                             "model/hub_cache.",
                                             "model/image_text_names.",
                                             "model/lora.",
                                             "model/lora_targets.",
                                             "model/adapter_config.",
                                             "model/peft_folder.",
                                             "trainer/run/",
                                             "trainer/cli/",
                                             "trainer/tunix/",
                                             "trainer/schedule.",
                                             "trainer/selftest_case.",
                                             "trainer/input_rows.",
                                             "trainer/process_memory.",
                                             "trainer/step_watch.",
                                             "trainer/stop_signal.",
                                             "trainer/train_plan.",
                                             "trainer/checkpoint/checkpoint_format.",
                                             "tests/configs/",
                                             "tests/data/",
                                             "tests/testing/"};
const std::vector<std::string> kTorchAllowedAfterAll = {"trainer/cli/engine"};  // the engine's own commands

// Which floors a file may include from; the first row whose prefix fits counts.
struct Floor {
  std::string folder;
  std::vector<std::string> may_use;
};
const std::vector<Floor> kFloors = {
    {"configs/", {"configs/"}},
    {"data/", {"configs/", "data/"}},
    {"model/", {"configs/", "data/", "model/"}},
    {"trainer/run/",
     {"configs/", "data/", "model/gemma_config.h", "model/hub_cache.h", "trainer/run/", "trainer/stop_signal.h"}},
    {"trainer/checkpoint/", {"configs/", "data/", "model/", "trainer/checkpoint/"}},
    {"trainer/cli/", {"configs/", "data/", "model/", "trainer/"}},
    {"trainer/", {"configs/", "data/", "model/", "trainer/"}},  // and nothing of trainer/cli, see below
};

bool is_torch_free_by_rule(std::string_view path) {
  return starts_with_any(path, kTorchFree) && !starts_with_any(path, kTorchAllowedAfterAll);
}

// How `path` comes to torch: "a.h -> b.h -> <ATen/...>", or empty. `seen` cuts what was already looked at.
std::string way_to_torch(const Tree& tree, const std::string& path, std::set<std::string>& seen) {
  const auto found = tree.find(path);
  if (found == tree.end() || !seen.insert(path).second) return "";
  for (const Include& include : found->second) {
    if (is_torch(include)) return path + " -> <" + include.target + ">";
    if (!include.quoted) continue;
    const std::string rest = way_to_torch(tree, include.target, seen);
    if (!rest.empty()) return path + " -> " + rest;
  }
  return "";
}

std::vector<std::string> find_violations(const Tree& tree) {
  std::vector<std::string> violations;
  for (const auto& [path, includes] : tree) {
    const auto floor = std::find_if(kFloors.begin(), kFloors.end(), [&, &file = path](const Floor& candidate) {
      return file.starts_with(candidate.folder);
    });
    for (const Include& include : includes) {
      if (include.quoted && !tree.contains(include.target)) {
        violations.push_back(path + " includes \"" + include.target + "\": no such file below the repository's root");
      } else if (include.quoted && floor != kFloors.end()) {
        const bool to_cli = include.target.starts_with("trainer/cli/") && !path.starts_with("trainer/cli/");
        if (to_cli || !starts_with_any(include.target, floor->may_use)) {
          violations.push_back(path + " includes \"" + include.target + "\" of a floor it may not use");
        }
      }
      if (include.target == "torch/torch.h") {
        violations.push_back(path + " includes <torch/torch.h>: 20 s per file; include single ATen/ops/*.h");
      }
      if (is_header(path) && kBigTorchHeaders.contains(include.target)) {
        violations.push_back(path + " is a header and includes the big <" + include.target + ">");
      }
    }
    std::set<std::string> seen;
    if (is_torch_free_by_rule(path)) {
      const std::string way = way_to_torch(tree, path, seen);
      if (!way.empty()) violations.push_back(path + " must not know torch: " + way);
    }
  }
  return violations;
}

Tree read_tree(const std::filesystem::path& root) {
  static const std::regex kInclude(R"(^\s*#\s*include\s*([<"])([^>"]+)[>"])");
  Tree tree;
  for (const char* folder : {"configs", "data", "model", "trainer", "tests"}) {
    if (!std::filesystem::exists(root / folder)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension().string();
      if (extension != ".h" && extension != ".cc" && extension != ".cu") continue;
      std::vector<Include>& includes = tree[std::filesystem::relative(entry.path(), root).generic_string()];
      std::ifstream file(entry.path());
      for (std::string line; std::getline(file, line);) {
        std::smatch match;
        if (line.find("include") != std::string::npos && std::regex_search(line, match, kInclude)) {
          includes.push_back({.target = match[2], .quoted = match[1] == "\""});
        }
      }
    }
  }
  return tree;
}

std::string joined(const std::vector<std::string>& lines) {
  std::ostringstream out;
  for (const std::string& line : lines) out << line << "\n";
  return out.str();
}

TEST(Layering, NoFileOfOursIncludesUpwardOrBringsTorchWhereItDoesNotBelong) {
  const Tree tree = read_tree(GEMMA_SFT_SOURCE_DIR);
  EXPECT_GT(tree.size(), 20u) << "the source tree was not found";
  EXPECT_EQ(joined(find_violations(tree)), "");
}

// The check itself, on trees made by hand.
Tree tree_of(const std::string& path, const Include& include) {
  Tree tree;
  for (const char* other : {"configs/a.h", "data/a.h", "model/a.h", "model/hub_cache.h", "trainer/a.h",
                            "trainer/run/a.h", "trainer/cli/a.h", "trainer/checkpoint/a.h"}) {
    tree[other];
  }
  tree[path].push_back(include);
  return tree;
}

bool allowed(const std::string& path, const std::string& target) {
  return find_violations(tree_of(path, {.target = target, .quoted = true})).empty();
}

TEST(LayeringCheck, DownwardIsAllowedAndUpwardIsNot) {
  EXPECT_TRUE(allowed("data/b.cc", "configs/a.h"));
  EXPECT_FALSE(allowed("configs/b.cc", "data/a.h"));
  EXPECT_TRUE(allowed("model/b.cc", "data/a.h"));
  EXPECT_FALSE(allowed("data/b.cc", "model/a.h"));
  EXPECT_TRUE(allowed("trainer/checkpoint/b.cc", "model/a.h"));
  EXPECT_FALSE(allowed("trainer/checkpoint/b.cc", "trainer/a.h"));
  EXPECT_TRUE(allowed("trainer/b.cc", "trainer/checkpoint/a.h"));
  EXPECT_FALSE(allowed("trainer/b.cc", "trainer/cli/a.h"));
  EXPECT_TRUE(allowed("trainer/cli/b.cc", "trainer/run/a.h"));
  EXPECT_TRUE(allowed("trainer/run/b.cc", "model/hub_cache.h"));
  EXPECT_FALSE(allowed("trainer/run/b.cc", "model/a.h"));
  EXPECT_FALSE(allowed("trainer/run/b.cc", "trainer/a.h"));
}

TEST(LayeringCheck, AnIncludeThatIsNotRelativeToTheRootIsRefused) { EXPECT_FALSE(allowed("data/b.cc", "a.h")); }

TEST(LayeringCheck, TorchIsFoundThroughHeaders) {
  const Include torch{.target = "ATen/core/Tensor.h", .quoted = false};
  EXPECT_FALSE(find_violations(tree_of("data/b.cc", torch)).empty());
  EXPECT_TRUE(find_violations(tree_of("model/b.cc", torch)).empty());
  EXPECT_TRUE(find_violations(tree_of("trainer/cli/engine_train.cc", torch)).empty());

  Tree through = tree_of("model/a.h", torch);
  through["trainer/cli/main.cc"].push_back({.target = "model/a.h", .quoted = true});
  EXPECT_EQ(find_violations(through),
            std::vector<std::string>{"trainer/cli/main.cc must not know torch: trainer/cli/main.cc -> "
                                     "model/a.h -> <ATen/core/Tensor.h>"});
}

TEST(LayeringCheck, BigTorchHeadersStayOutOfHeadersAndTorchTorchOutOfEverything) {
  EXPECT_FALSE(find_violations(tree_of("model/b.h", {.target = "ATen/ATen.h"})).empty());
  EXPECT_TRUE(find_violations(tree_of("model/b.cc", {.target = "ATen/ATen.h"})).empty());
  EXPECT_FALSE(find_violations(tree_of("model/b.cc", {.target = "torch/torch.h"})).empty());
}

}  // namespace
