// DATABASE_URL, as Python's libraries write it, -> what libpq understands.
#pragma once

#include <string>

namespace gemma_sft {

// postgresql://, postgres:// and either with a driver (postgresql+asyncpg://) are accepted; the driver is dropped, and
// asyncpg's query parameter `ssl` becomes `sslmode`. Throws Error(kUsage) for anything else; its message never holds a
// part of the address, because it may hold a password.
std::string libpq_address(const std::string& database_url);

}  // namespace gemma_sft
