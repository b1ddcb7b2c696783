#include "configs/secrets.h"

#include <gtest/gtest.h>

#include "configs/settings.h"

namespace gemma_sft {
namespace {

TEST(Secrets, KeysThatNameSecretsAreRecognisedInAnySpelling) {
  for (const char* key : {"api_key",  "apiKey",        "API-KEY",      "tunix_api_key",     "token",        "hf_token",
                          "HF_TOKEN", "authToken",     "access_token", "password",          "db_password",  "passwd",
                          "secret",   "client_secret", "database_url", "DATABASE_URL",      "databaseUrl",  "dsn",
                          "pg_dsn",   "credentials",   "private_key",  "connection_string", "Authorization"}) {
    EXPECT_TRUE(names_secret(key)) << key;
  }
}

TEST(Secrets, TokensOfAVocabularyAndEverySettingAreNoSecrets) {
  for (const char* key : {"tokens", "tokenizer", "bos_token", "eos_token", "pad_token", "max_tokens",
                          "tokens_per_second", "keyword", "monkey"}) {
    EXPECT_FALSE(names_secret(key)) << key;
  }
  for (const std::string& key : setting_keys()) EXPECT_FALSE(names_secret(key)) << key;
}

TEST(Secrets, ValuesThatHoldSecretsAreRecognised) {
  for (const char* text :
       {"tunix_sk_abc", "Bearer tunix_sk_dev_1", "postgresql+asyncpg://user:pw@localhost/db",
        "https://a:b@c.example/v1", "hf_abcdefghijklmnopqrstuvwx", "-----BEGIN RSA PRIVATE KEY-----"}) {
    EXPECT_TRUE(holds_secret(text)) << text;
  }
  for (const char* text :
       {"", "google/gemma-2b-it", "https://api.tunix.ai/v1", "postgresql://localhost/db", "gs://bucket/a@b:c",
        "hf_model", "org/hf_tuned-model", "http://host:8080/v1", "https://host/path@2x"}) {
    EXPECT_FALSE(holds_secret(text)) << text;
  }
}

TEST(Secrets, MaskingLeavesNothingOfTheSecret) {
  EXPECT_EQ(without_secrets("key tunix_sk_live_12.3-x, next"), "key tunix_sk_***, next");
  EXPECT_EQ(without_secrets("postgresql://user:p@ss:w/rd@host/db"), "postgresql://***@host/db");
  EXPECT_EQ(without_secrets("a hf_abcdefghijklmnopqrstuvwx b"), "a hf_*** b");
  EXPECT_EQ(without_secrets("tunix_sk_a tunix_sk_b"), "tunix_sk_*** tunix_sk_***");
  EXPECT_EQ(without_secrets("--set a=tunix_sk_b: no"), "--set a=tunix_sk_***: no");
  EXPECT_EQ(without_secrets("nothing here"), "nothing here");
  EXPECT_EQ(without_secrets("-----BEGIN KEY-----\nabc"), "***");
}

TEST(Secrets, RemediesNameTheVariable) {
  EXPECT_NE(secret_remedy("api_key").find("TUNIX_API_KEY"), std::string::npos);
  EXPECT_NE(secret_remedy("database_url").find("DATABASE_URL"), std::string::npos);
  EXPECT_NE(secret_remedy("hf_token").find("local Hugging Face cache"), std::string::npos);
}

}  // namespace
}  // namespace gemma_sft
