#include "tests/e2e/postgres.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <stdexcept>

#include "tests/e2e/process.h"

namespace gemma_sft {
namespace {

namespace fs = std::filesystem;

int free_port() {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in place = {};
  place.sin_family = AF_INET;
  place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(place);
  const bool found = bind(descriptor, reinterpret_cast<sockaddr*>(&place), size) == 0 &&
                     getsockname(descriptor, reinterpret_cast<sockaddr*>(&place), &size) == 0;
  close(descriptor);
  if (!found) throw std::runtime_error("no free port");
  return ntohs(place.sin_port);
}

void shell(const std::string& command) {
  const ProcessResult result = run_process({"/bin/sh", "-c", command}, {.folder = "/"});
  if (result.exit_code != 0) throw std::runtime_error(command + "\n" + result.out + result.err);
}

}  // namespace

Postgres::Postgres() : port_(free_port()) {
  const fs::path place = folder_.path();
  fs::copy(GEMMA_SFT_POSTGRES_DIR "/..", place / "pg", fs::copy_options::recursive);
  fs::copy(GEMMA_SFT_POSTGRES_DIR "/../../pgserver.libs", place / "pgserver.libs", fs::copy_options::recursive);
  folder_.write("password", kPassword);
  if (getuid() == 0) {
    user_ = "setpriv --reuid=nobody --regid=nogroup --clear-groups ";
    shell("chown -R nobody '" + place.string() + "'");
  }
  const std::string data = (place / "data").string();
  shell(program("initdb") + " -D '" + data + "' -U postgres -A scram-sha-256 --pwfile='" +
        (place / "password").string() + "' -E UTF8 --no-locale --no-sync");
  shell(program("pg_ctl") + " -D '" + data + "' -w -l '" + (place / "log").string() + "' -o \"-p " +
        std::to_string(port_) + " -k '" + place.string() + "' -c listen_addresses=127.0.0.1 -c fsync=off\" start");
}

Postgres::~Postgres() { kill(); }

std::string Postgres::program(const std::string& name) const {
  return user_ + "'" + (folder_ / ("pg/pginstall/bin/" + name)).string() + "'";
}

std::string Postgres::address(const std::string& password, const std::string& database) const {
  return "postgresql+asyncpg://postgres:" + password + "@127.0.0.1:" + std::to_string(port_) + "/" + database;
}

void Postgres::run(const std::string& sql) const {
  const fs::path file = folder_.write("statements.sql", sql);
  shell("PGPASSWORD='" + std::string(kPassword) + "' '" + (folder_ / "pg/pginstall/bin/psql").string() +
        "' -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p " + std::to_string(port_) + " -U postgres -f '" + file.string() + "'");
}

void Postgres::kill() {
  std::ifstream file(folder_ / "data/postmaster.pid");
  pid_t server = 0;
  if (!(file >> server)) return;
  // The first process ends the others: they notice that it is gone.
  ::kill(server, SIGKILL);
  while (::kill(server, 0) == 0) usleep(10'000);
  fs::remove(folder_ / "data/postmaster.pid");
}

}  // namespace gemma_sft
