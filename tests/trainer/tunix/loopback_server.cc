#include "tests/trainer/tunix/loopback_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <stdexcept>
#include <thread>

namespace gemma_sft {
namespace {

void require(bool done, const char* what) {
  if (!done) throw std::runtime_error(std::string("loopback server: ") + what);
}

template <typename T, void (*Free)(T*)>
struct Freeing {
  void operator()(T* pointer) const { Free(pointer); }
};
using Bio = std::unique_ptr<BIO, Freeing<BIO, BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Freeing<X509, X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Freeing<EVP_PKEY, EVP_PKEY_free>>;
using Context = std::unique_ptr<SSL_CTX, Freeing<SSL_CTX, SSL_CTX_free>>;
using Tls = std::unique_ptr<SSL, Freeing<SSL, SSL_free>>;

Bio reader_of(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }
Certificate certificate_of(const std::string& pem) {
  return Certificate(PEM_read_bio_X509(reader_of(pem).get(), nullptr, nullptr, nullptr));
}
Key key_of(const std::string& pem) {
  return Key(PEM_read_bio_PrivateKey(reader_of(pem).get(), nullptr, nullptr, nullptr));
}
template <typename Write>
std::string pem_of(const Write& write) {
  const Bio bio(BIO_new(BIO_s_mem()));
  require(write(bio.get()) == 1, "PEM");
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &bytes);
  return {bytes, static_cast<size_t>(size)};
}

void add_extension(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
  require(extension != nullptr, "certificate extension");
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

// One connection, plain or under TLS.
class Connection {
 public:
  Connection(int socket, SSL_CTX* context) : socket_(socket) {
    const timeval limit{20, 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (context == nullptr) return;
    tls_.reset(SSL_new(context));
    SSL_set_fd(tls_.get(), socket_);
    usable_ = SSL_accept(tls_.get()) == 1;
  }
  ~Connection() {
    if (tls_ && usable_) SSL_shutdown(tls_.get());
    shutdown(socket_, SHUT_RDWR);
    close(socket_);
  }
  bool usable() const { return usable_; }
  std::string read_some() {
    char buffer[65536];
    const auto count =
        tls_ ? SSL_read(tls_.get(), buffer, sizeof buffer) : static_cast<int>(recv(socket_, buffer, sizeof buffer, 0));
    return count > 0 ? std::string(buffer, static_cast<size_t>(count)) : std::string();
  }
  bool write(std::string_view bytes) {
    while (!bytes.empty()) {
      const auto count = tls_ ? SSL_write(tls_.get(), bytes.data(), static_cast<int>(bytes.size()))
                              : static_cast<int>(::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL));
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
    return true;
  }

 private:
  int socket_;
  Tls tls_;
  bool usable_ = true;
};

std::string header(const HttpRequest& request, const std::string& lower_name) {
  for (const auto& [name, value] : request.headers) {
    std::string lower = name;
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (lower == lower_name) return value;
  }
  return "";
}

std::optional<HttpRequest> read_request(Connection& connection) {
  std::string text;
  size_t end = std::string::npos;
  while ((end = text.find("\r\n\r\n")) == std::string::npos) {
    const std::string piece = connection.read_some();
    if (piece.empty() || text.size() > 1'000'000) return std::nullopt;
    text += piece;
  }
  HttpRequest request;
  const size_t first_end = text.find("\r\n");
  const std::string first = text.substr(0, first_end);
  const std::string method = first.substr(0, first.find(' '));
  request.method = method == "POST"   ? HttpMethod::kPost
                   : method == "PUT"  ? HttpMethod::kPut
                   : method == "HEAD" ? HttpMethod::kHead
                                      : HttpMethod::kGet;
  const size_t from = first.find(' ') + 1;
  request.url = first.substr(from, first.rfind(' ') - from);
  for (size_t at = first_end + 2; at < end;) {
    const size_t line_end = text.find("\r\n", at);
    const std::string line = text.substr(at, line_end - at);
    const size_t colon = line.find(':');
    if (colon != std::string::npos) {
      request.headers.emplace_back(line.substr(0, colon), line.substr(std::min(line.size(), colon + 2)));
    }
    at = line_end + 2;
  }
  request.body = text.substr(end + 4);
  const std::string length = header(request, "content-length");
  const size_t expected = length.empty() ? 0 : std::stoul(length);
  while (request.body.size() < expected) {
    const std::string piece = connection.read_some();
    if (piece.empty()) return std::nullopt;
    request.body += piece;
  }
  return request;
}

void pause(double seconds) {
  if (seconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

void write_reply(Connection& connection, const HttpRequest& request, const LoopbackReply& reply) {
  if (reply.raw) {
    connection.write(*reply.raw);
    return;
  }
  std::string head = "HTTP/1.1 " + std::to_string(reply.response.status) + " Said\r\nConnection: close\r\n";
  for (const auto& [name, value] : reply.response.headers) head += name + ": " + value + "\r\n";
  if (!reply.response.find_header("content-length")) {
    head += "Content-Length: " + std::to_string(reply.response.body.size()) + "\r\n";
  }
  connection.write(head + "\r\n");
  if (request.method == HttpMethod::kHead) return;
  const std::string_view body = std::string_view(reply.response.body).substr(0, reply.cut_after);
  if (reply.byte_seconds <= 0) {
    connection.write(body);
    return;
  }
  for (const char c : body) {
    if (!connection.write({&c, 1})) return;
    pause(reply.byte_seconds);
  }
}

}  // namespace

TlsCertificate make_certificate(const CertificateRequest& request) {
  const Key key(EVP_EC_gen("P-256"));
  require(key != nullptr, "key");
  const Certificate certificate(X509_new());
  X509_set_version(certificate.get(), 2);
  static std::atomic<long> serial{1};
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), serial++);
  constexpr long kDay = 86'400;
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), request.first_day * kDay);
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), request.last_day * kDay);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(request.is_authority ? "authority" : "server"), -1,
                             -1, 0);
  X509_set_pubkey(certificate.get(), key.get());
  Certificate issuer = request.issuer != nullptr ? certificate_of(request.issuer->certificate) : nullptr;
  const Key issuer_key = request.issuer != nullptr ? key_of(request.issuer->key) : nullptr;
  X509* const signer = issuer ? issuer.get() : certificate.get();
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(signer));
  const bool is_address = request.name.find_first_not_of("0123456789.") == std::string::npos;
  add_extension(certificate.get(), signer, NID_subject_alt_name, (is_address ? "IP:" : "DNS:") + request.name);
  if (request.is_authority) add_extension(certificate.get(), signer, NID_basic_constraints, "critical,CA:TRUE");
  require(X509_sign(certificate.get(), issuer_key ? issuer_key.get() : key.get(), EVP_sha256()) > 0, "signature");
  return {.certificate = pem_of([&](BIO* bio) { return PEM_write_bio_X509(bio, certificate.get()); }),
          .key = pem_of([&](BIO* bio) {
            return PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
          })};
}

// Shared with the threads, which may outlive the server by a moment.
struct LoopbackServer::State {
  Handler handler;
  Context context;
  int listener = -1;
  int port = 0;
  std::mutex mutex;  // of what follows, and of the handler
  std::condition_variable idle;
  std::vector<HttpRequest> requests;
  int connections = 0;
  std::thread acceptor;

  void serve(int socket) {
    Connection connection(socket, context.get());
    if (!connection.usable()) return;
    const auto request = read_request(connection);
    if (!request) return;
    LoopbackReply reply;
    {
      const std::lock_guard lock(mutex);
      requests.push_back(*request);
      reply = handler(*request);
    }
    pause(reply.delay_seconds);
    if (!reply.hangs_up) write_reply(connection, *request, reply);
  }
};

LoopbackServer::LoopbackServer(Handler handler, const TlsCertificate* tls) : state_(std::make_shared<State>()) {
  signal(SIGPIPE, SIG_IGN);  // TLS writes without MSG_NOSIGNAL
  State& state = *state_;
  state.handler = std::move(handler);
  if (tls != nullptr) {
    state.context.reset(SSL_CTX_new(TLS_server_method()));
    const Certificate certificate = certificate_of(tls->certificate);
    const Key key = key_of(tls->key);
    require(SSL_CTX_use_certificate(state.context.get(), certificate.get()) == 1 &&
                SSL_CTX_use_PrivateKey(state.context.get(), key.get()) == 1,
            "certificate");
  }
  state.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  require(bind(state.listener, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0, "bind");
  require(listen(state.listener, 64) == 0, "listen");
  socklen_t size = sizeof address;
  getsockname(state.listener, reinterpret_cast<sockaddr*>(&address), &size);
  state.port = ntohs(address.sin_port);
  state.acceptor = std::thread([&state, shared = state_] {
    for (;;) {
      const int connection = accept4(state.listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) return;
      {
        const std::lock_guard lock(state.mutex);
        ++state.connections;
      }
      std::thread([shared, connection] {
        shared->serve(connection);
        const std::lock_guard lock(shared->mutex);
        if (--shared->connections == 0) shared->idle.notify_all();
      }).detach();
    }
  });
}

LoopbackServer::~LoopbackServer() {
  shutdown(state_->listener, SHUT_RDWR);
  state_->acceptor.join();
  close(state_->listener);
  std::unique_lock lock(state_->mutex);
  state_->idle.wait(lock, [&] { return state_->connections == 0; });
}

int LoopbackServer::port() const { return state_->port; }

std::string LoopbackServer::origin() const {
  return (state_->context ? "https://127.0.0.1:" : "http://127.0.0.1:") + std::to_string(state_->port);
}

std::vector<HttpRequest> LoopbackServer::requests() const {
  const std::lock_guard lock(state_->mutex);
  return state_->requests;
}

}  // namespace gemma_sft
