#include "trainer/tunix/service_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "data/files/json_text.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::json;
constexpr size_t kExcerpt = 200;
constexpr size_t kName = 300;

// Reads members of one object; every wrong type is Unreadable with the member's name.
class Reader {
 public:
  Reader(const Json& json, const ServiceText& text, std::string where)
      : json_(json), text_(text), where_(std::move(where)) {
    if (!json.is_object()) fail("expected an object");
  }

  [[noreturn]] void fail(const std::string& problem) const {
    throw Unreadable{(where_.empty() ? "" : where_ + ": ") + problem};
  }
  const Json* find(const char* name) const {
    const auto found = json_.find(name);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  const Json& require(const char* name) const {
    const Json* value = find(name);
    if (value == nullptr) fail(fmt::format("\"{}\" is missing", name));
    return *value;
  }
  std::string text(const char* name, size_t most = 2048) const {
    const Json* value = find(name);
    if (value == nullptr) return "";
    if (!value->is_string()) fail(fmt::format("\"{}\": expected text", name));
    return text_.shown(value->get_ref<const std::string&>(), most);
  }
  // Text that becomes part of an address or a path: as it is, and never with the key in it.
  std::string exact(const char* name) const {
    const Json& value = require(name);
    if (!value.is_string()) fail(fmt::format("\"{}\": expected text", name));
    if (text_.holds_key(value.get_ref<const std::string&>())) fail(fmt::format("\"{}\" holds a secret", name));
    return value.get<std::string>();
  }
  double number(const char* name, double otherwise) const {
    const Json* value = find(name);
    if (value == nullptr) return otherwise;
    if (!value->is_number() || !std::isfinite(value->get<double>())) {
      fail(fmt::format("\"{}\": expected a number", name));
    }
    return value->get<double>();
  }
  std::optional<double> find_number(const char* name) const {
    if (find(name) == nullptr) return std::nullopt;
    return number(name, 0);
  }
  int64_t whole(const char* name, int64_t otherwise) const {
    const Json* value = find(name);
    if (value == nullptr) return otherwise;
    const bool fits = value->is_number_integer() &&
                      (!value->is_number_unsigned() || value->get<uint64_t>() <= uint64_t{INT64_MAX}) &&
                      value->get<int64_t>() >= 0;
    if (!fits) fail(fmt::format("\"{}\": expected a whole number from 0", name));
    return value->get<int64_t>();
  }
  std::optional<int64_t> find_whole(const char* name) const {
    if (find(name) == nullptr) return std::nullopt;
    return whole(name, 0);
  }
  bool is_true(const char* name) const {
    const Json* value = find(name);
    if (value != nullptr && !value->is_boolean()) fail(fmt::format("\"{}\": expected true or false", name));
    return value != nullptr && value->get<bool>();
  }
  Reader object(const char* name) const { return Reader(require(name), text_, name); }
  const Json& array(const char* name) const {
    const Json& value = require(name);
    if (!value.is_array()) fail(fmt::format("\"{}\": expected an array", name));
    return value;
  }
  std::vector<std::string> texts(const char* name, const char* member) const {
    std::vector<std::string> list;
    if (find(name) == nullptr) return list;
    for (const Json& one : array(name)) {
      if (member != nullptr && one.is_object()) {
        list.push_back(Reader(one, text_, name).text(member, kName));
      } else if (one.is_string()) {
        list.push_back(text_.shown(one.get_ref<const std::string&>(), kName));
      } else {
        fail(fmt::format("\"{}\": expected a list of texts", name));
      }
    }
    return list;
  }

 private:
  const Json& json_;
  const ServiceText& text_;
  std::string where_;
};

std::string excerpt(std::string_view body, const ServiceText& text) {
  return body.empty() ? "the body is empty" : fmt::format("the body begins with: {}", text.shown(body, kExcerpt));
}

// The body as JSON, whatever it holds; `read` throws Unreadable.
template <typename Read>
auto read_body(std::string_view body, const ServiceText& text, const Read& read) {
  if (const auto problem = find_json_problem(body, {.max_depth = 64, .max_members = 262'144})) {
    throw Unreadable{fmt::format("not JSON (byte {}: expected {}, found {}); {}", problem->byte, problem->expected,
                                 text.shown(problem->found, 80), excerpt(body, text))};
  }
  const Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  try {
    return read(json);
  } catch (const Unreadable& problem) {
    throw Unreadable{problem.why + "; " + excerpt(body, text)};
  }
}

// Of a body that is an object.
template <typename Parse>
auto parse_body(std::string_view body, const ServiceText& text, const Parse& parse) {
  return read_body(body, text, [&](const Json& json) { return parse(Reader(json, text, "")); });
}

Job job_of(const Reader& reader) {
  Job job;
  job.id = reader.exact("id");
  if (!is_job_id(job.id)) reader.fail("\"id\": expected the id of a job");
  const std::string state = reader.exact("state");
  const auto known = find_job_state(state);
  if (!known) reader.fail("\"state\": expected one that this program knows");
  job.state = *known;
  job.phase = reader.text("phase", 64);
  job.progress = reader.number("progress", 0);
  job.step = reader.whole("step", 0);
  job.total_steps = reader.whole("total_steps", 0);
  job.loss = reader.find_number("loss");
  job.cost_usd = reader.find_number("cost_usd");
  job.eta_seconds = reader.find_number("eta_seconds");
  job.created_at = reader.text("created_at", 64);
  job.finished_at = reader.text("finished_at", 64);
  job.accelerator = reader.text("accelerator", 64);
  job.region = reader.text("region", 64);
  job.experiment_name = reader.text("experiment_name", kName);
  job.dashboard_url = reader.text("dashboard_url", kName);
  if (reader.find("error") != nullptr) {
    const Reader error = reader.object("error");
    job.problem = JobProblem{error.text("code", 64), error.text("message"), error.text("hint")};
  }
  if (reader.find("spec") != nullptr) {
    const Reader spec = reader.object("spec");
    if (job.experiment_name.empty()) job.experiment_name = spec.text("experiment_name", kName);
    if (spec.find("labels") != nullptr) job.submission = spec.object("labels").text("submission", kName);
  }
  return job;
}

JobEvent event_of(const Reader& reader) {
  return {.sequence = reader.whole("seq", 0),
          .time = reader.text("ts", 64),
          .type = reader.text("type", 64),
          .level = reader.text("level", 16),
          .message = reader.text("message")};
}

}  // namespace

KeyInfo parse_key_info(std::string_view body, const ServiceText& text) {
  return parse_body(body, text, [](const Reader& reader) {
    if (!reader.is_true("ok")) reader.fail("\"ok\": expected true");
    KeyInfo info;
    if (reader.find("key") != nullptr) {
      const Reader key = reader.object("key");
      info.prefix = key.text("prefix", 32);
      info.expires_at = key.text("expires_at", 64);
    }
    info.projects = reader.texts("projects", "id");
    return info;
  });
}

Quota parse_quota(std::string_view body, const ServiceText& text) {
  return parse_body(body, text, [](const Reader& reader) {
    reader.require("available");
    return Quota{.limit = reader.whole("limit", 0),
                 .in_use = reader.whole("in_use", 0),
                 .available = reader.whole("available", 0),
                 .resets_at = reader.text("resets_at", 64),
                 .console_url = reader.text("console_url", kName)};
  });
}

PriceTable parse_accelerators(std::string_view body, const ServiceText& text) {
  return read_body(body, text, [&](const Json& json) {
    if (!json.is_array()) throw Unreadable{"expected a list of accelerators"};
    PriceTable table;
    for (const Json& one : json) {
      const Reader entry(one, text, "accelerator");
      Accelerator accelerator;
      accelerator.name = entry.text("name", 64);
      accelerator.cores = entry.whole("cores", 0);
      accelerator.hbm_bytes_per_core = entry.number("hbm_bytes_per_core", 0);
      accelerator.usd_per_hour = entry.find_number("usd_per_hour");
      accelerator.spot_usd_per_hour = entry.find_number("spot_usd_per_hour");
      const double least = std::min(accelerator.usd_per_hour.value_or(0), accelerator.spot_usd_per_hour.value_or(0));
      if (accelerator.name.empty() || accelerator.cores < 1 || !(accelerator.hbm_bytes_per_core > 0) || least < 0) {
        entry.fail("expected a name, cores, memory and prices that are not negative");
      }
      table.as_of = std::max(table.as_of, entry.text("prices_as_of", 64));
      table.accelerators.push_back(std::move(accelerator));
    }
    return table;
  });
}

ServiceEstimate parse_estimate(std::string_view body, const ServiceText& text) {
  return parse_body(body, text, [](const Reader& reader) {
    const Reader hours = reader.object("hours");
    const Reader usd = reader.object("usd");
    return ServiceEstimate{.steps = reader.find_whole("steps"),
                           .tokens = reader.find_whole("tokens"),
                           .hours_low = hours.find_number("low"),
                           .hours_high = hours.find_number("high"),
                           .usd_low = usd.find_number("low"),
                           .usd_high = usd.find_number("high")};
  });
}

DatasetState parse_dataset(std::string_view body, const ServiceText& text) {
  return parse_body(body, text, [&](const Reader& reader) {
    DatasetState dataset;
    dataset.id = reader.exact("id");
    const bool clean = !dataset.id.empty() && dataset.id.size() <= 100 &&
                       dataset.id.find_first_not_of(
                           "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == std::string::npos;
    if (!clean) reader.fail("\"id\": expected the id of a data set");
    dataset.state = reader.exact("state");
    if (dataset.state != "awaiting_upload" && dataset.state != "ready" && dataset.state != "invalid") {
      reader.fail("\"state\": expected one that this program knows");
    }
    if (reader.find("upload") != nullptr) {
      dataset.max_part_bytes = static_cast<uint64_t>(reader.object("upload").whole("max_part_bytes", 0));
    }
    if (reader.find("errors") != nullptr) {
      for (const Json& one : reader.array("errors")) {
        const Reader error(one, text, "errors");
        dataset.problems += fmt::format("{}line {}: {}", dataset.problems.empty() ? "" : "; ", error.whole("line", 0),
                                        error.text("message", kName));
        if (dataset.problems.size() > 2048) break;
      }
    }
    return dataset;
  });
}

Job parse_job(std::string_view body, const ServiceText& text) { return parse_body(body, text, job_of); }

JobPage parse_job_page(std::string_view body, const ServiceText& text) {
  return parse_body(body, text, [&](const Reader& reader) {
    JobPage page;
    for (const Json& one : reader.array("data")) page.jobs.push_back(job_of(Reader(one, text, "data")));
    if (reader.is_true("has_more")) {
      if (reader.find("next") != nullptr) {
        page.next = reader.exact("next");
      } else if (!page.jobs.empty()) {
        page.next = page.jobs.back().id;
      }
      if (page.next && !is_job_id(*page.next)) reader.fail("\"next\": expected the id of a job");
    }
    return page;
  });
}

JobEvent parse_event(std::string_view body, int64_t sequence, const std::string& type, const ServiceText& text) {
  JobEvent event = parse_body(body, text, event_of);
  if (event.sequence == 0) event.sequence = sequence;
  if (event.type.empty()) event.type = text.shown(type, 64);
  return event;
}

EventPage parse_events(std::string_view body, int64_t after, const ServiceText& text) {
  return parse_body(body, text, [&](const Reader& reader) {
    EventPage page;
    page.last_sequence = after;
    for (const Json& one : reader.array("data")) {
      JobEvent read = event_of(Reader(one, text, "data"));
      if (read.sequence < 1) reader.fail("\"data\": an event without its \"seq\"");
      if (read.sequence <= page.last_sequence) continue;  // seen
      page.last_sequence = read.sequence;
      page.events.push_back(std::move(read));
    }
    return page;
  });
}

ArtifactList parse_artifacts(std::string_view body, const ServiceText& text) {
  return parse_body(body, text, [&](const Reader& reader) {
    ArtifactList list;
    list.complete = reader.find("complete") == nullptr || reader.is_true("complete");
    for (const Json& one : reader.array("data")) {
      const Reader entry(one, text, "data");
      Artifact artifact{.path = entry.exact("path"),
                        .kind = entry.text("kind", 64),
                        .size = static_cast<uint64_t>(entry.whole("size", 0)),
                        .sha256 = entry.exact("sha256")};
      entry.require("size");
      if (artifact.sha256.size() != 64 || artifact.sha256.find_first_not_of("0123456789abcdef") != std::string::npos) {
        entry.fail("\"sha256\": expected 64 hex digits");
      }
      list.artifacts.push_back(std::move(artifact));
    }
    return list;
  });
}

ServiceProblem parse_problem(int status, std::string_view body, const ServiceText& text) {
  ServiceProblem problem;
  problem.status = status;
  try {
    parse_body(body, text, [&](const Reader& reader) {
      const Reader error = reader.object("error");
      problem.message = error.text("message");
      problem.code = error.text("code", 64);
      problem.request_id = error.text("request_id", 128);
      problem.resets_at = error.text("resets_at", 64);
      return 0;
    });
  } catch (const Unreadable&) {
  }
  if (problem.message.empty()) problem.message = text.shown(body, kExcerpt);
  return problem;
}

}  // namespace gemma_sft
