// A PostgreSQL server of its own for one test: a new database in a temporary folder, on a free port of this machine.
#pragma once

#include <filesystem>
#include <string>

#include "tests/testing/temp_dir.h"

namespace gemma_sft {

class Postgres {
 public:
  // Starts one; its users need passwords. Root cannot run a server: then it runs as nobody. Throws std::runtime_error.
  Postgres();
  ~Postgres();  // ends it
  Postgres(const Postgres&) = delete;
  Postgres& operator=(const Postgres&) = delete;

  static constexpr char kPassword[] = "pw-canary/4711";  // of the user postgres; %2F in an address
  std::string address(const std::string& password = "pw-canary%2F4711", const std::string& database = "postgres") const;
  // Runs SQL as the user postgres.
  void run(const std::string& sql) const;
  void kill();  // SIGKILL for all of its processes

 private:
  std::string program(const std::string& name) const;

  TempDir folder_;
  std::string user_;  // words before a command that make it run as another user, each with a space behind it
  int port_ = 0;
};

}  // namespace gemma_sft
