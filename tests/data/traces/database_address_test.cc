#include "data/traces/database_address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "configs/error.h"

namespace gemma_sft {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(DatabaseAddress, LosesTheDriverThatPythonNames) {
  EXPECT_EQ(libpq_address("postgresql+asyncpg://localhost/tunix_rt_dev"), "postgresql://localhost/tunix_rt_dev");
  EXPECT_EQ(libpq_address("postgres+psycopg2://u:p@h:5433/d"), "postgresql://u:p@h:5433/d");
  EXPECT_EQ(libpq_address("postgresql://u@h/d?sslmode=require"), "postgresql://u@h/d?sslmode=require");
  EXPECT_EQ(libpq_address("postgres:///d?host=/var/run/postgresql"), "postgresql:///d?host=/var/run/postgresql");
}

TEST(DatabaseAddress, SaysSslAsLibpqDoes) {
  EXPECT_EQ(libpq_address("postgresql+asyncpg://h/d?ssl=verify-full"), "postgresql://h/d?sslmode=verify-full");
  EXPECT_EQ(libpq_address("postgresql+asyncpg://h/d?a=1&ssl=true&b=ssl"), "postgresql://h/d?a=1&sslmode=require&b=ssl");
  EXPECT_EQ(libpq_address("postgresql+asyncpg://h/d?ssl=false"), "postgresql://h/d?sslmode=disable");
  EXPECT_EQ(libpq_address("postgresql://h/d?sslrootcert=f"), "postgresql://h/d?sslrootcert=f");
}

TEST(DatabaseAddress, OfAnotherKindIsRefusedAndNotShown) {
  for (const char* address : {"mysql://user:canary@h/d", "canary", "", "sqlite:///canary.db", "http://canary"}) {
    try {
      libpq_address(address);
      ADD_FAILURE() << address;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kUsage);
      EXPECT_THAT(error.what(), HasSubstr("DATABASE_URL: expected"));
      EXPECT_THAT(error.what(), Not(HasSubstr("canary")));
    }
  }
}

}  // namespace
}  // namespace gemma_sft
