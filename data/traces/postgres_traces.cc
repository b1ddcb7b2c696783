#include "data/traces/postgres_traces.h"

#include <fmt/format.h>
#include <libpq-fe.h>
#include <poll.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <map>
#include <string_view>
#include <unordered_set>

#include "configs/error.h"
#include "configs/secrets.h"
#include "data/files/utf8.h"
#include "data/traces/database_address.h"

namespace gemma_sft {
namespace {

constexpr size_t kIdsPerQuery = 200;
constexpr size_t kMaxServerText = 300;  // bytes of a server's message that are shown
// The server ends a statement after 60 s by itself; one that does not even do that is given up a little later.
constexpr std::chrono::seconds kLongestSilence(75);

struct Freed {
  void operator()(PGconn* connection) const { PQfinish(connection); }
  void operator()(PGresult* result) const { PQclear(result); }
  void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
  void operator()(char* text) const { PQfreemem(text); }
};
using Connection = std::unique_ptr<PGconn, Freed>;
using Result = std::unique_ptr<PGresult, Freed>;

bool is_this_machine(const std::string& host) {
  return host.empty() || host.front() == '/' || host == "localhost" || host == "::1" || host.starts_with("127.");
}

// Keyword -> value, as the address gives them.
std::map<std::string, std::string> parse_address(const std::string& address) {
  char* problem = nullptr;
  const std::unique_ptr<PQconninfoOption, Freed> options(PQconninfoParse(address.c_str(), &problem));
  const std::unique_ptr<char, Freed> freed(problem);  // its text quotes the address, so that it cannot be shown
  if (options == nullptr) {
    throw Error(ErrorKind::kUsage,
                "DATABASE_URL: not an address that PostgreSQL's client library understands; write "
                "postgresql://USER@HOST:5432/DATABASE, with a password behind USER after a colon, its special "
                "characters as %XX");
  }
  std::map<std::string, std::string> values;
  for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
    if (option->val != nullptr) values[option->keyword] = option->val;
  }
  return values;
}

void set_default(std::map<std::string, std::string>& values, const std::string& keyword, const std::string& value) {
  values.emplace(keyword, value);
}

std::string lower_case(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool is_uuid(const std::string& text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : !std::isxdigit(static_cast<unsigned char>(text[i]))) return false;
  }
  return true;
}

// The literal of a PostgreSQL array; UUIDs need no quotes in it.
std::string array_text(const std::vector<std::string>& ids, size_t begin, size_t end) {
  std::string text = "{";
  for (size_t i = begin; i < end; ++i) text += (i == begin ? "" : ",") + ids[i];
  return text + "}";
}

// Python's isoformat leaves out a fraction of zero.
std::string iso_time(std::string text) {
  constexpr std::string_view kNoFraction = ".000000";
  if (text.ends_with(kNoFraction)) text.resize(text.size() - kNoFraction.size());
  return text + "+00:00";
}

}  // namespace

struct PostgresTraces::State {
  Connection connection;
  std::string name;
  std::string password;

  // A server's text as it may be shown: one line, bounded, escaped, without the password.
  std::string shown(std::string text) const {
    for (char& c : text) {
      if (c == '\n' || c == '\t') c = ' ';
    }
    while (text.ends_with(' ')) text.pop_back();
    if (!password.empty()) {
      for (size_t at = text.find(password); at != std::string::npos; at = text.find(password, at + 3)) {
        text.replace(at, password.size(), "***");
      }
    }
    return quoted_excerpt(without_secrets(text), kMaxServerText);
  }

  [[noreturn]] void fail(const PGresult* result) const {
    const char* code = result != nullptr ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : nullptr;
    const std::string state = code != nullptr ? code : "";
    const char* text = result != nullptr ? PQresultErrorMessage(result) : nullptr;
    const std::string message = shown(text != nullptr && *text != '\0' ? text : PQerrorMessage(connection.get()));
    if (state == "57014") {
      throw Error(ErrorKind::kTimeout,
                  fmt::format("{}: a statement took longer than 60 s and was given up: {}", name, message));
    }
    if (state == "42P01" || state == "42703") {
      throw Error(ErrorKind::kApi, fmt::format("{}: this is not a database of tunix-rt: {}; check the database that "
                                               "DATABASE_URL names",
                                               name, message));
    }
    if (state == "42501") {
      throw Error(ErrorKind::kAuthentication,
                  fmt::format("{}: {}; the user of DATABASE_URL needs SELECT on the table traces", name, message));
    }
    throw Error(ErrorKind::kApi,
                fmt::format("{}: reading traces failed: {}; the same command starts the reading anew", name, message));
  }

  // The next result of what was sent, nullptr after the last one.
  Result next_result() const {
    const auto deadline = std::chrono::steady_clock::now() + kLongestSilence;
    while (PQisBusy(connection.get()) == 1) {
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
      if (left.count() <= 0) {
        throw Error(ErrorKind::kTimeout,
                    fmt::format("{}: no answer for {} s; the connection is given up", name, kLongestSilence.count()));
      }
      pollfd socket = {.fd = PQsocket(connection.get()), .events = POLLIN, .revents = 0};
      if (poll(&socket, 1, static_cast<int>(left.count())) < 0 && errno != EINTR) fail(nullptr);
      if (socket.revents != 0 && PQconsumeInput(connection.get()) != 1) fail(nullptr);
    }
    return Result(PQgetResult(connection.get()));
  }

  void run(const char* statement) const {
    if (PQsendQuery(connection.get(), statement) != 1) fail(nullptr);
    while (const Result result = next_result()) {
      if (PQresultStatus(result.get()) != PGRES_COMMAND_OK) fail(result.get());
    }
  }

  void read_group(const std::string& ids, const std::function<void(StoredTrace&&)>& use,
                  std::unordered_set<std::string>& found) const {
    static constexpr char kQuery[] =
        "SELECT id::text, trace_version, to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), "
        "octet_length(payload::text), CASE WHEN octet_length(payload::text) <= $2::bigint THEN payload::text END "
        "FROM traces WHERE id = ANY($1::uuid[]) ORDER BY array_position($1::uuid[], id)";
    const std::string limit = std::to_string(kMaxPayloadBytes);
    const char* values[] = {ids.c_str(), limit.c_str()};
    if (PQsendQueryParams(connection.get(), kQuery, 2, nullptr, values, nullptr, nullptr, 0) != 1) fail(nullptr);
    PQsetSingleRowMode(connection.get());
    while (const Result row = next_result()) {
      const ExecStatusType status = PQresultStatus(row.get());
      if (status == PGRES_TUPLES_OK) continue;  // the end of the rows
      if (status != PGRES_SINGLE_TUPLE) fail(row.get());
      const auto text = [&](int column) { return std::string(PQgetvalue(row.get(), 0, column)); };
      const std::string id = text(0);
      if (PQgetisnull(row.get(), 0, 4)) {
        throw Error(ErrorKind::kData, fmt::format("trace {}: payload: expected at most {} bytes, found {}", id,
                                                  kMaxPayloadBytes, text(3)));
      }
      found.insert(id);
      use({.id = id, .trace_version = text(1), .created_at = iso_time(text(2)), .payload = text(4)});
    }
  }
};

PostgresTraces::PostgresTraces(const std::string& database_url) : state_(new State) {
  std::map<std::string, std::string> values = parse_address(libpq_address(database_url));
  state_->password = values["password"];
  if (state_->password.empty()) values.erase("password");
  set_default(values, "connect_timeout", "10");
  set_default(values, "application_name", "gemma-sft");
  // A peer that vanished without a word is noticed within about two minutes.
  set_default(values, "keepalives_idle", "30");
  set_default(values, "keepalives_interval", "10");
  set_default(values, "keepalives_count", "3");
  values["client_encoding"] = "UTF8";
  const std::string host = values.contains("hostaddr") ? values["hostaddr"] : values["host"];
  if (values["host"].empty()) values.erase("host");
  if (!is_this_machine(host)) set_default(values, "sslmode", "verify-full");

  std::vector<const char*> keywords, texts;
  for (const auto& [keyword, value] : values) {
    keywords.push_back(keyword.c_str());
    texts.push_back(value.c_str());
  }
  keywords.push_back(nullptr);
  texts.push_back(nullptr);
  state_->connection.reset(PQconnectdbParams(keywords.data(), texts.data(), /*expand_dbname=*/0));
  PGconn* connection = state_->connection.get();
  if (connection == nullptr) throw Error(ErrorKind::kOutOfMemory, "no memory for a connection to PostgreSQL");
  const auto known = [](const char* text) { return text != nullptr && *text != '\0' ? text : "?"; };
  state_->name = without_secrets(fmt::format("database {} at {}:{}", known(PQdb(connection)), known(PQhost(connection)),
                                             known(PQport(connection))));
  if (PQstatus(connection) != CONNECTION_OK) {
    const std::string message = state_->shown(PQerrorMessage(connection));
    const bool refused = PQconnectionNeedsPassword(connection) != 0 ||
                         message.find("authentication failed") != std::string::npos ||
                         message.find("pg_hba.conf") != std::string::npos;
    throw Error(
        refused ? ErrorKind::kAuthentication : ErrorKind::kApi,
        fmt::format("{}: cannot connect: {}; check DATABASE_URL (its value is not shown)", state_->name, message));
  }
  PQsetNoticeProcessor(
      connection, [](void*, const char*) {}, nullptr);
}

PostgresTraces::~PostgresTraces() = default;

const std::string& PostgresTraces::name() const { return state_->name; }

std::vector<std::string> PostgresTraces::read(const std::vector<std::string>& ids,
                                              const std::function<void(StoredTrace&&)>& use) {
  std::vector<std::string> wanted;
  for (const std::string& id : ids) {
    if (!is_uuid(id)) {
      throw Error(ErrorKind::kData,
                  fmt::format("trace id {}: expected a UUID, as the database has", quoted_excerpt(id)));
    }
    wanted.push_back(lower_case(id));
  }
  state_->run("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY");
  state_->run("SET LOCAL statement_timeout = '60s'");
  std::unordered_set<std::string> found;
  for (size_t begin = 0; begin < wanted.size(); begin += kIdsPerQuery) {
    state_->read_group(array_text(wanted, begin, std::min(begin + kIdsPerQuery, wanted.size())), use, found);
  }
  state_->run("COMMIT");
  std::vector<std::string> missing;
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (!found.contains(wanted[i])) missing.push_back(ids[i]);
  }
  return missing;
}

}  // namespace gemma_sft
