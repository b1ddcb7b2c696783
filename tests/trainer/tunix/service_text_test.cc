#include "trainer/tunix/service_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ServiceText, MasksTheKeyInEveryForm) {
  const ServiceText text("tunix_sk_prod_Zebra/Canary+42");
  for (const char* form : {"tunix_sk_prod_Zebra/Canary+42", "Zebra/Ca", "anary+42",
                           "tunix%5Fsk%5Fprod%5FZebra%2FCanary%2B42", "dHVuaXhfc2tfcHJvZF9aZWJyYS9DYW5hcnkrNDI="}) {
    const std::string shown = text.shown(std::string("see ") + form + " here");
    EXPECT_THAT(shown, Not(HasSubstr(form))) << shown;
    EXPECT_THAT(shown, HasSubstr("***"));
  }
}

TEST(ServiceText, IsBoundedAndWithoutControlCharacters) {
  const ServiceText text;
  EXPECT_EQ(text.shown("a\nb \"c\" \x1b[0m"), "a b \"c\" \\u001b[0m");
  EXPECT_EQ(text.shown("abcdef", 3), "abc...");
}

}  // namespace
}  // namespace gemma_sft
