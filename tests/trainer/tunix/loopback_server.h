// An HTTP server on 127.0.0.1 inside the test, with or without TLS, that answers as a function says: a thread per
// connection, one answer per connection.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "trainer/tunix/http_transport.h"

namespace gemma_sft {

struct LoopbackReply {
  HttpResponse response = {};           // Content-Length is added where no header says it
  bool hangs_up = false;                // closes the connection instead
  size_t cut_after = SIZE_MAX;          // bytes of the body, then closes
  double delay_seconds = 0;             // before the first byte
  double byte_seconds = 0;              // between two bytes of the body
  std::optional<std::string> raw = {};  // sent as it is instead of all of this
};

// A certificate with its key and what it was signed with, as PEM.
struct TlsCertificate {
  std::string certificate, key;
};
struct CertificateRequest {
  std::string name = "127.0.0.1";  // an address or a host, in the certificate's subjectAltName
  int first_day = -1;              // from today
  int last_day = 1;
  const TlsCertificate* issuer = nullptr;  // nullptr: self-signed
  bool is_authority = false;
};
TlsCertificate make_certificate(const CertificateRequest& request);

class LoopbackServer {
 public:
  using Handler = std::function<LoopbackReply(const HttpRequest& request)>;
  // `handler` runs on other threads, one call at a time; request.url is the target ("/v1/jobs?limit=1").
  explicit LoopbackServer(Handler handler, const TlsCertificate* tls = nullptr);
  ~LoopbackServer();
  LoopbackServer(const LoopbackServer&) = delete;
  LoopbackServer& operator=(const LoopbackServer&) = delete;

  int port() const;
  std::string origin() const;  // "http://127.0.0.1:1234"
  std::string url() const { return origin() + "/v1"; }
  std::vector<HttpRequest> requests() const;  // so far; `method` of an unknown one is kGet

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace gemma_sft
