#include "trainer/tunix/service_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ServiceText, MasksTheKeyInEveryForm) {
  const ServiceText text("tunix_sk_prod_Zebra/Canary+42");
  for (const char* form :
       {"tunix_sk_prod_Zebra/Canary+42", "Zebra/Ca", "anary+42", "tunix%5Fsk%5Fprod%5FZebra%2FCanary%2B42",
        "dHVuaXhfc2tfcHJvZF9aZWJyYS9DYW5hcnkrNDI=", "Zebra%2fCanary%2b42", "Zebra\\/Canary+42",
        "\\u005a\\u0065bra\\u002FCanary+42", "dHVuaXhfc2tfcHJvZF9aZWJyYS9DYW5hcnkr"}) {
    const std::string shown = text.shown(std::string("see ") + form + " here");
    EXPECT_THAT(shown, Not(HasSubstr(form))) << shown;
    EXPECT_THAT(shown, HasSubstr("***"));
  }
}

TEST(ServiceText, LeavesWordsAloneThatOnlyResembleTheKey) {
  const ServiceText text("tunix_sk_prod_Zebra/Canary+42");
  EXPECT_EQ(text.shown("a Canary, a Zebra and 42 keys of the form tunix"),
            "a Canary, a Zebra and 42 keys of the form tunix");
  EXPECT_FALSE(text.holds_key("final_model/config.json"));
  EXPECT_TRUE(text.holds_key("final_model/Zebra/Canary"));
}

TEST(ServiceText, IsBoundedAndWithoutControlCharacters) {
  const ServiceText text;
  EXPECT_EQ(text.shown("a\nb \"c\" \x1b[0m"), "a b \"c\" \\u001b[0m");
  EXPECT_EQ(text.shown("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace gemma_sft
