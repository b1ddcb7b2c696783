// What looks like a secret, by the name of a key or by the form of a value. Used to refuse secrets in configuration and
// to mask them in every message: a value that holds one is never printed.
#pragma once

#include <string>
#include <string_view>

namespace gemma_sft {

// Is `key` (one name, without its path) the name of a secret, such as api_key, hf_token, DatabaseUrl or password?
bool names_secret(std::string_view key);

// Where the secret that `key` names belongs: "set the environment variable TUNIX_API_KEY ...".
std::string secret_remedy(std::string_view key);

// Does `text` hold a key of the job service (tunix_sk_...), a hub token (hf_...), a private key or a URL with a
// password?
bool holds_secret(std::string_view text);

// `text` with every such part replaced by ***.
std::string without_secrets(std::string_view text);

}  // namespace gemma_sft
