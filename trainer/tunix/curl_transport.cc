#include <curl/curl.h>

#include <algorithm>
#include <exception>
#include <memory>
#include <mutex>
#include <string_view>

#include "configs/error.h"
#include "trainer/tunix/http_transport.h"

namespace gemma_sft {
namespace {

struct Exchange {
  const HttpRequest* request = nullptr;
  const CurlOptions* options = nullptr;
  HttpResponse response;
  bool too_large = false;
  bool body_begun = false;
  bool body_refused = false;
  bool interrupted = false;
  std::exception_ptr thrown;
};

bool streams(const Exchange& exchange) {
  return exchange.request->sink && (exchange.response.status == 200 || exchange.response.status == 206);
}

size_t on_header(char* bytes, size_t size, size_t count, void* user) {
  auto& exchange = *static_cast<Exchange*>(user);
  const std::string_view line(bytes, size * count);
  if (line.starts_with("HTTP/")) {  // also after a 100 Continue
    exchange.response = {};
    const size_t space = line.find(' ');
    int status = 0;
    for (size_t i = space + 1; space != std::string_view::npos && i < line.size() && line[i] >= '0' && line[i] <= '9';
         ++i) {
      status = std::min(status * 10 + (line[i] - '0'), 1000);
    }
    exchange.response.status = status;
    return size * count;
  }
  constexpr size_t kMostHeaders = 200;
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return size * count;
  if (exchange.response.headers.size() >= kMostHeaders) {
    exchange.too_large = true;
    return 0;
  }
  std::string name(line.substr(0, colon));
  for (char& c : name) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  std::string_view value = line.substr(colon + 1);
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  while (!value.empty() && blank(value.front())) value.remove_prefix(1);
  while (!value.empty() && blank(value.back())) value.remove_suffix(1);
  exchange.response.headers.emplace_back(std::move(name), value);
  return size * count;
}

size_t on_body(char* bytes, size_t size, size_t count, void* user) {
  auto& exchange = *static_cast<Exchange*>(user);
  const std::string_view piece(bytes, size * count);
  if (!streams(exchange)) {
    if (exchange.response.body.size() + piece.size() > exchange.request->max_body_bytes) {
      exchange.too_large = true;
      return 0;
    }
    exchange.response.body += piece;
    return piece.size();
  }
  try {
    if (!exchange.body_begun) {
      exchange.body_begun = true;
      exchange.body_refused = !exchange.request->sink->begin(exchange.response);
    }
    if (exchange.body_refused) return 0;
    exchange.request->sink->append(piece);
  } catch (...) {
    exchange.thrown = std::current_exception();
    return 0;
  }
  return piece.size();
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  auto& exchange = *static_cast<Exchange*>(user);
  exchange.interrupted = exchange.options->interrupted && exchange.options->interrupted();
  return exchange.interrupted ? 1 : 0;
}

// A handshake that ends with a certificate whose signature is another authority's. OpenSSL reports the cryptography
// that failed, and libcurl, which looks for OpenSSL's word for an untrusted certificate, a handshake that failed.
bool is_about_a_signature(std::string_view details) {
  return details.find("asn1 encoding routines") != std::string_view::npos ||
         details.find("certificate") != std::string_view::npos;
}

TransportFailure::Kind kind_of(CURLcode code, std::string_view details) {
  switch (code) {
    case CURLE_SSL_CONNECT_ERROR:
      return is_about_a_signature(details) ? TransportFailure::Kind::kUntrusted : TransportFailure::Kind::kLost;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT: return TransportFailure::Kind::kNotSent;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR: return TransportFailure::Kind::kUntrusted;
    default: return TransportFailure::Kind::kLost;
  }
}

class CurlTransport : public HttpTransport {
 public:
  explicit CurlTransport(const CurlOptions& options) : options_(options) {
    static std::once_flag once;
    std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
    handle_.reset(curl_easy_init());
    if (!handle_) throw Error(ErrorKind::kApi, "libcurl cannot be started; is there enough memory?");
  }

  HttpResponse send(const HttpRequest& request) override {
    CURL* const curl = handle_.get();
    curl_easy_reset(curl);  // connections stay
    Exchange exchange;
    exchange.request = &request;
    exchange.options = &options_;
    char details[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, details);
    curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
    curl_easy_setopt(curl, CURLOPT_USERAGENT, options_.user_agent.c_str());
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    if (!options_.ca_file.empty()) curl_easy_setopt(curl, CURLOPT_CAINFO, options_.ca_file.c_str());
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
                     milliseconds(std::min(options_.connect_seconds, request.seconds)));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(request.least_bytes_per_second));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                     static_cast<long>(std::max(1.0, std::min(options_.stall_seconds, request.seconds))));
    if (!request.sink) curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, milliseconds(request.seconds));
    const auto origin = find_origin(request.url);
    if (origin && origin->is_loopback()) curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &exchange);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &exchange);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &exchange);
    if (request.method == HttpMethod::kHead) curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    if (request.method == HttpMethod::kPost || request.method == HttpMethod::kPut) {
      curl_easy_setopt(curl, CURLOPT_POST, 1L);
      curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request.body.data());
      curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
      if (request.method == HttpMethod::kPut) curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, "PUT");
    }
    curl_slist* list = curl_slist_append(nullptr, "Expect:");
    for (const auto& [name, value] : request.headers) list = curl_slist_append(list, (name + ": " + value).c_str());
    const std::unique_ptr<curl_slist, void (*)(curl_slist*)> headers(list, curl_slist_free_all);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.get());

    const CURLcode code = curl_easy_perform(curl);
    if (exchange.thrown) std::rethrow_exception(exchange.thrown);
    if (exchange.too_large) {
      throw TransportFailure{TransportFailure::Kind::kTooLarge, "the answer is longer than any valid one"};
    }
    if (exchange.interrupted) throw TransportFailure{TransportFailure::Kind::kInterrupted, "interrupted"};
    if (code == CURLE_OUT_OF_MEMORY) {  // libcurl's word for it, too
      throw TransportFailure{TransportFailure::Kind::kLost, "a header that is longer than any valid one, or no memory"};
    }
    if (code != CURLE_OK && !exchange.body_refused) {
      throw TransportFailure{kind_of(code, details), *details != '\0' ? details : curl_easy_strerror(code)};
    }
    if (streams(exchange) && !exchange.body_begun) request.sink->begin(exchange.response);  // an empty body
    return std::move(exchange.response);
  }

 private:
  static long milliseconds(double seconds) { return std::max(1L, static_cast<long>(seconds * 1000)); }

  CurlOptions options_;
  std::unique_ptr<CURL, void (*)(CURL*)> handle_{nullptr, curl_easy_cleanup};
};

}  // namespace

std::unique_ptr<HttpTransport> make_curl_transport(const CurlOptions& options) {
  return std::make_unique<CurlTransport>(options);
}

}  // namespace gemma_sft
