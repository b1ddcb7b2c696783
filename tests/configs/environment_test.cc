#include "configs/environment.h"

#include <gtest/gtest.h>

#include <map>

#include "configs/error.h"
#include "configs/settings.h"
#include "tests/configs/config_folder.h"

namespace gemma_sft {
namespace {

EnvironmentReader reader(const ConfigFolder& folder, const std::string& dotenv,
                         const std::map<std::string, std::string>& variables = {}) {
  return EnvironmentReader(
      [variables](const std::string& name) -> std::optional<std::string> {
        const auto found = variables.find(name);
        return found == variables.end() ? std::nullopt : std::optional<std::string>(found->second);
      },
      folder.write(".env", dotenv));
}

TEST(Environment, ReadsTheCommonFormsOfDotenv) {
  const ConfigFolder folder;
  const EnvironmentReader environment = reader(folder,
                                               "\xef\xbb\xbf# a comment\n"
                                               "\n"
                                               "PLAIN=value\r\n"
                                               "  SPACED = some words  \n"
                                               "export EXPORTED=1\n"
                                               "COMMENTED=a#b # comment\n"
                                               "DOUBLE=\"a # b\\n\\\"c\\\" \\$d\"  # comment\n"
                                               "SINGLE='a\\n $b'\n"
                                               "URL=postgresql+asyncpg://localhost/db?x=1\n"
                                               "LINES=\"one\n"
                                               "two\"\n"
                                               "TWICE=1\n"
                                               "TWICE=2\n"
                                               "LAST=end");
  EXPECT_EQ(environment.find("PLAIN"), "value");
  EXPECT_EQ(environment.find("SPACED"), "some words");
  EXPECT_EQ(environment.find("EXPORTED"), "1");
  EXPECT_EQ(environment.find("COMMENTED"), "a#b");
  EXPECT_EQ(environment.find("DOUBLE"), "a # b\n\"c\" $d");
  EXPECT_EQ(environment.find("SINGLE"), "a\\n $b");
  EXPECT_EQ(environment.find("URL"), "postgresql+asyncpg://localhost/db?x=1");
  EXPECT_EQ(environment.find("LINES"), "one\ntwo");
  EXPECT_EQ(environment.find("TWICE"), "2");
  EXPECT_EQ(environment.find("LAST"), "end");
  EXPECT_EQ(environment.find("ABSENT"), std::nullopt);
  EXPECT_TRUE(environment.warnings().empty());
}

TEST(Environment, TheEnvironmentWinsAndEmptyMeansUnset) {
  const ConfigFolder folder;
  const EnvironmentReader environment = reader(folder, "A=file\nB=file\nC=\n", {{"A", "shell"}, {"B", ""}, {"C", ""}});
  EXPECT_EQ(environment.find("A"), "shell");
  EXPECT_EQ(environment.origin("A"), "A");
  EXPECT_EQ(environment.find("B"), "file");
  EXPECT_EQ(environment.origin("B"), "B in " + (folder.path() / ".env").string());
  EXPECT_EQ(environment.find("C"), std::nullopt);
  EXPECT_EQ(environment.origin("C"), "");
}

TEST(Environment, LinesThatAreNoAssignmentsAreNamedWithoutTheirText) {
  const ConfigFolder folder;
  const EnvironmentReader environment = reader(folder, "A=1\ntunix_sk_live_123\n9X=1\nOPEN=\"no end\nB=2\nBAD='x' y\n");
  const std::string file = (folder.path() / ".env").string();
  EXPECT_EQ(environment.find("A"), "1");
  EXPECT_EQ(environment.find("B"), "2");
  ASSERT_EQ(environment.warnings().size(), 4u);
  EXPECT_EQ(environment.warnings()[0], file + ":2: not of the form NAME=VALUE; the line is ignored");
  EXPECT_EQ(environment.warnings()[1], file + ":3: not of the form NAME=VALUE; the line is ignored");
  EXPECT_EQ(environment.warnings()[2], file + ":4: not of the form NAME=VALUE; the line is ignored");
  EXPECT_EQ(environment.warnings()[3], file + ":6: not of the form NAME=VALUE; the line is ignored");
}

TEST(Environment, AFolderCalledDotenvAndAnAbsentFileAreFine) {
  const ConfigFolder folder;
  std::filesystem::create_directory(folder.path() / "venv");
  const auto nothing = [](const std::string&) { return std::optional<std::string>(); };
  EXPECT_EQ(EnvironmentReader(nothing, folder.path() / "venv").find("A"), std::nullopt);
  EXPECT_EQ(EnvironmentReader(nothing, folder.path() / "absent").find("A"), std::nullopt);
}

TEST(Environment, AHugeDotenvIsRefused) {
  const ConfigFolder folder;
  EXPECT_THROW(reader(folder, std::string((1 << 20) + 1, 'x')), Error);
}

TEST(Environment, TheProcessEnvironmentIsTheDefault) {
  const ConfigFolder folder;
  ASSERT_EQ(setenv("GEMMA_SFT_TEST_VARIABLE", "here", 1), 0);
  EXPECT_EQ(EnvironmentReader({}, "").find("GEMMA_SFT_TEST_VARIABLE"), "here");
  unsetenv("GEMMA_SFT_TEST_VARIABLE");
  EXPECT_EQ(EnvironmentReader({}, "").find("GEMMA_SFT_TEST_VARIABLE"), std::nullopt);
}

TEST(Environment, TunixModeIsMockUnlessItSaysReal) {
  const ConfigFolder folder;
  EXPECT_EQ(tunix_mode(reader(folder, "")), TunixMode::kMock);
  EXPECT_EQ(tunix_mode(reader(folder, "TUNIX_MODE=mock\n")), TunixMode::kMock);
  EXPECT_EQ(tunix_mode(reader(folder, "", {{"TUNIX_MODE", "real"}})), TunixMode::kReal);
  try {
    tunix_mode(reader(folder, "", {{"TUNIX_MODE", "Real"}}));
    FAIL() << "Real was accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "TUNIX_MODE: expected mock or real, found \"Real\"; unset it for mock");
  }
}

TEST(Environment, EveryListedVariableFillsASettingThatExists) {
  for (const EnvironmentVariable& variable : environment_variables()) {
    EXPECT_FALSE(variable.help.empty()) << variable.name;
    if (!variable.key.empty()) {
      EXPECT_NE(find_setting(variable.key), nullptr) << variable.name;
    }
  }
}

}  // namespace
}  // namespace gemma_sft
