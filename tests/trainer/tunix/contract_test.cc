// The gateway's OpenAPI document against this client: every request that the client makes is one that the document
// describes, and every answer that the document describes is one that the client reads.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "data/files/file_system.h"
#include "data/files/sha256.h"
#include "tests/testing/temp_dir.h"
#include "tests/trainer/tunix/scripted_service.h"
#include "trainer/tunix/job_spec.h"
#include "trainer/tunix/service_json.h"

namespace gemma_sft {
namespace {

using Json = nlohmann::json;

const Json& document() {
  static const Json read =
      Json::parse(read_file(std::string(GEMMA_SFT_SOURCE_DIR) + "/trainer/tunix/gateway/openapi.json"));
  return read;
}

const Json& resolved(const Json& schema) {
  if (!schema.contains("$ref")) return schema;
  return resolved(document().at(Json::json_pointer(schema.at("$ref").get<std::string>().substr(1))));
}

bool is_type(const Json& value, const std::string& type) {
  if (type == "integer") return value.is_number_integer();
  if (type == "number") return value.is_number();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "array") return value.is_array();
  if (type == "null") return value.is_null();
  return value.is_object();
}

// What is wrong with `value`, or nothing. The parts of JSON Schema that the document uses.
std::string problem_of(const Json& value, const Json& unresolved, const std::string& where) {
  const Json& schema = resolved(unresolved);
  if (schema.contains("anyOf")) {
    std::string problems;
    for (const Json& one : schema.at("anyOf")) {
      const std::string problem = problem_of(value, one, where);
      if (problem.empty()) return "";
      problems += problem + "; ";
    }
    return problems;
  }
  if (schema.contains("type") && !is_type(value, schema.at("type"))) {
    return where + ": expected " + schema.at("type").get<std::string>() + ", found " + value.dump();
  }
  if (schema.contains("const") && value != schema.at("const")) return where + ": expected another constant";
  if (schema.contains("enum")) {
    const Json& known = schema.at("enum");
    if (std::find(known.begin(), known.end(), value) == known.end())
      return where + ": not of the list: " + value.dump();
  }
  if (value.is_string() && schema.contains("pattern") &&
      !std::regex_search(value.get<std::string>(), std::regex(schema.at("pattern").get<std::string>()))) {
    return where + ": does not match " + schema.at("pattern").get<std::string>() + ": " + value.dump();
  }
  if (value.is_number() && schema.contains("minimum") && value < schema.at("minimum")) return where + ": too small";
  if (value.is_number() && schema.contains("maximum") && value > schema.at("maximum")) return where + ": too large";
  if (value.is_array() && schema.contains("items")) {
    for (const Json& one : value) {
      if (const auto problem = problem_of(one, schema.at("items"), where + "[]"); !problem.empty()) return problem;
    }
  }
  if (!value.is_object()) return "";
  const Json properties = schema.value("properties", Json::object());
  for (const Json& name : schema.value("required", Json::array())) {
    if (!value.contains(name.get<std::string>())) return where + ": " + name.get<std::string>() + " is missing";
  }
  for (const auto& [name, member] : value.items()) {
    if (properties.contains(name)) {
      if (const auto problem = problem_of(member, properties.at(name), where + "." + name); !problem.empty())
        return problem;
    } else if (schema.value("additionalProperties", Json(true)) == Json(false)) {
      return where + "." + name + ": not in the document";
    }
  }
  return "";
}

// A value that the schema describes, with the ids and digests that go with a name.
Json example_of(const Json& unresolved, const std::string& name = "") {
  const Json& schema = resolved(unresolved);
  if (schema.contains("anyOf")) return example_of(schema.at("anyOf").at(0), name);
  if (schema.contains("const")) return schema.at("const");
  if (schema.contains("enum")) return schema.at("enum").at(0);
  const std::string type = schema.value("type", "object");
  if (type == "integer") return 1;
  if (type == "number") return 0.5;
  if (type == "boolean") return true;
  if (type == "array") return Json::array({example_of(schema.at("items"))});
  if (type == "string") {
    if (name == "sha256") return std::string(64, 'a');
    if (name == "id" || name == "next") return "job_abc123xyz";
    return "x";
  }
  Json object = Json::object();
  const Json properties = schema.value("properties", Json::object());
  for (const auto& [member, described] : properties.items()) object[member] = example_of(described, member);
  return object;
}

// "/v1/jobs/{job_id}" for "/v1/jobs/job_1"; "" where the document has none.
std::string described_path(const std::string& path) {
  for (const auto& [pattern, methods] : document().at("paths").items()) {
    const std::string expression = std::regex_replace(std::regex_replace(pattern, std::regex(R"(\{path\})"), ".+"),
                                                      std::regex(R"(\{[a-z_]+\})"), "[^/]+");
    if (std::regex_match(path, std::regex(expression))) return pattern;
  }
  return "";
}

JobSpec full_spec(std::optional<TokenTotals> totals = {}) {
  RunConfig config;
  config.model.base_model = "google/gemma-3-270m-it";
  config.model.accelerator = "tpu-v3-8";
  config.model.region = "us-central1";
  config.lora.rank = 4;
  config.tunix.project_id = "p";
  config.tunix.max_cost_usd = 10;
  config.tunix.timeout_seconds = 3600;
  config.tunix.spot = true;
  config.output.model_dtype = ModelDtype::kBf16;
  return make_job_spec({.config = config,
                        .run_id = "r",
                        .output_uri = "gs://bucket/folder/run_r",
                        .max_seq_length = 128,
                        .dataset_id = totals ? "" : "ds_abc123xyz",
                        .submission = "key-1",
                        .config_sha256 = std::string(64, 'c'),
                        .client_version = "1",
                        .totals = totals});
}

TEST(Contract, EveryRequestIsOneThatTheDocumentDescribes) {
  ScriptedService service;
  service.looks_until_end = 2;
  FakeClock clock;
  HttpJobClientOptions options;
  options.base_url = "https://jobs.example.org/v1";
  options.key = "tunix_sk_dev_0123456789";
  HttpJobClient client(service, clock, options);
  const TempDir dir;
  const std::string rows = "{}\n";
  client.auth_test();
  client.accelerators();
  client.quota("p", "tpu-v3-8", "us-central1");
  client.estimate_cost(full_spec(TokenTotals{.rows = 2, .tokens = 30, .longest_row = 20}));
  client.upload_dataset({.file = dir.write("rows.jsonl", rows),
                         .bytes = rows.size(),
                         .sha256 = sha256_hex(rows),
                         .rows = 1,
                         .dataset_key = "k",
                         .manifest_json = R"({"build_id":"b"})"},
                        "p", "key");
  const Job job = client.submit(full_spec(), Attempt::kRepeated);
  client.status(job.id);
  client.list({.project_id = "p", .state = JobState::kRunning, .experiment = "e", .limit = 5, .after = job.id});
  client.events(job.id, 1);
  client.stream_events(job.id, 1, [](const JobEvent&) { return true; });
  client.cancel(job.id);
  struct Nothing : ArtifactSink {
    uint64_t bytes = 0;
    uint64_t size() const override { return bytes; }
    void restart() override { bytes = 0; }
    void append(std::string_view more) override { bytes += more.size(); }
  } sink;
  for (const Artifact& artifact : client.artifacts(job.id).artifacts) {
    sink.bytes = 0;
    client.download(job.id, artifact, sink);
  }

  std::set<std::string> asked;
  for (const HttpRequest& request : service.requests) {
    static const std::map<HttpMethod, std::string> names = {
        {HttpMethod::kGet, "get"}, {HttpMethod::kHead, "head"}, {HttpMethod::kPost, "post"}, {HttpMethod::kPut, "put"}};
    const std::string target = request.url.substr(request.url.find("/v1"));
    const std::string path = target.substr(0, target.find('?'));
    const std::string described = described_path(path);
    ASSERT_NE(described, "") << path;
    const Json& methods = document().at("paths").at(described);
    ASSERT_TRUE(methods.contains(names.at(request.method))) << names.at(request.method) << " " << described;
    const Json& operation = methods.at(names.at(request.method));
    asked.insert(names.at(request.method) + " " + described);
    if (target.find('?') != std::string::npos) {
      std::set<std::string> known;
      for (const Json& parameter : operation.value("parameters", Json::array())) {
        if (parameter.at("in") == "query") known.insert(parameter.at("name"));
      }
      const std::string query = "&" + target.substr(target.find('?') + 1);
      for (size_t at = 0; at != std::string::npos; at = query.find('&', at + 1)) {
        EXPECT_TRUE(known.contains(query.substr(at + 1, query.find('=', at) - at - 1))) << target;
      }
    }
    const Json content = operation.value("requestBody", Json::object()).value("content", Json::object());
    if (content.contains("application/json")) {
      EXPECT_EQ(problem_of(Json::parse(request.body), content.at("application/json").at("schema"), "body"), "")
          << described;
    }
  }
  EXPECT_EQ(asked.size(), 15u);  // every call of README.md
}

TEST(Contract, EveryAnswerOfTheDocumentIsRead) {
  const ServiceText text;
  const auto answer = [](const std::string& method, const std::string& path, const std::string& status) {
    const Json example = example_of(document()
                                        .at("paths")
                                        .at("/v1" + path)
                                        .at(method)
                                        .at("responses")
                                        .at(status)
                                        .at("content")
                                        .at("application/json")
                                        .at("schema"));
    return example.dump();
  };
  EXPECT_EQ(parse_key_info(answer("get", "/auth/test", "200"), text).projects.size(), 1u);
  EXPECT_EQ(parse_accelerators(answer("get", "/accelerators", "200"), text).accelerators.size(), 1u);
  EXPECT_EQ(parse_quota(answer("get", "/projects/{project_id}/quota", "200"), text).available, 1);
  EXPECT_EQ(parse_estimate(answer("post", "/cost-estimates", "200"), text).usd_high, 0.5);
  const ServiceEstimate unknown =
      parse_estimate(R"({"steps":null,"hours":{"low":null,"high":null},"usd":{"low":null,"high":null}})", text);
  EXPECT_FALSE(unknown.steps || unknown.tokens || unknown.hours_low || unknown.usd_high);
  EXPECT_EQ(parse_dataset(answer("get", "/datasets/{dataset_id}", "200"), text).id, "job_abc123xyz");
  const Job job = parse_job(answer("get", "/jobs/{job_id}", "200"), text);
  EXPECT_EQ(job.total_steps, 1);
  EXPECT_EQ(job.loss, 0.5);
  ASSERT_TRUE(job.problem);
  EXPECT_EQ(job.problem->message, "x");
  const JobPage page = parse_job_page(answer("get", "/jobs", "200"), text);
  EXPECT_EQ(page.jobs.size(), 1u);
  EXPECT_EQ(page.next, "job_abc123xyz");
  EXPECT_EQ(parse_events(answer("get", "/jobs/{job_id}/events", "200"), 0, text).events.size(), 1u);
  EXPECT_EQ(parse_artifacts(answer("get", "/jobs/{job_id}/artifacts", "200"), text).artifacts.size(), 1u);
  EXPECT_EQ(parse_problem(401, answer("get", "/jobs/{job_id}", "401"), text).code, "x");
}

}  // namespace
}  // namespace gemma_sft
