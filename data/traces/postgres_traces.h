// Traces by id from the table `traces` of a tunix-rt database in PostgreSQL, through libpq. Reads only, in one
// transaction that sees one state of the database; values are parameters, never part of the SQL text.
//
// A connection to another machine is verified (sslmode verify-full) unless DATABASE_URL says another sslmode. Waiting
// is bounded: 10 s to connect, 60 s for a statement. No message holds the address or the password. One thread at a
// time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/traces/stored_trace.h"

namespace gemma_sft {

class PostgresTraces {
 public:
  // The largest payload that is read; the service's own limit for a trace is 10 MiB.
  static constexpr int64_t kMaxPayloadBytes = 10 << 20;

  // Connects. Throws Error: kUsage (an address that cannot be one), kAuthentication (user or password refused), kApi.
  explicit PostgresTraces(const std::string& database_url);
  ~PostgresTraces();
  PostgresTraces(const PostgresTraces&) = delete;
  PostgresTraces& operator=(const PostgresTraces&) = delete;

  // "database tunix_rt_dev at localhost:5432": for messages.
  const std::string& name() const;

  // Calls `use` for each of `ids` that is there, in their order, holding one trace in memory at a time; gives the ids
  // that are not there. Throws Error: kData (an id that is no UUID, a payload above the limit), kTimeout, kApi
  // (connection lost, no such table), and whatever `use` throws.
  std::vector<std::string> read(const std::vector<std::string>& ids, const std::function<void(StoredTrace&&)>& use);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gemma_sft
