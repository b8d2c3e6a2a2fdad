// rest_front: an HTTP front that reads requests as TensorFlow Serving's REST
// API does. It is a double for the tensorflow_model_server binary, which no
// package registry carries: the same HTTP library (libevent), the same regular
// expression engine (RE2) with the same two patterns, matched against the same
// string (path, "?" query, "#" fragment, still percent-encoded), decoded after
// the match, the same refusals. What it does not do itself, reading bodies and
// computing, serve.py does behind a UNIX socket.
//
//   rest_front ADDRESS PORT SOCKET
#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/thread.h>
#include <re2/re2.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>

namespace {

const RE2 kAnyPath("(?i)/v1/.*");
const RE2 kPrediction(R"((?i)/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:(classify|regress|predict))");
const RE2 kModel(R"((?i)/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:\/(metadata))?)");

struct Reply {
  int status = 500;
  std::string body;
};

// What the path and the method ask for; refused.body set if nothing is to be computed.
struct Call {
  std::string op, name, version, label, encoding, body;
  Reply refused;
};

Reply Error(int status, const std::string& text) {
  std::string s;
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      s += '\\';
      s += static_cast<char>(c);
    } else if (c < 0x20) {
      char u[8];
      std::snprintf(u, sizeof u, "\\u%04X", c);
      s += u;
    } else {
      s += static_cast<char>(c);
    }
  }
  return {status, "{\n    \"error\": \"" + s + "\"\n}"};
}

int Hex(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// As curl_easy_unescape: "%" and two hex digits, anything else stays as it is.
std::string Unescape(const std::string& s) {
  std::string out;
  for (size_t i = 0; i < s.size(); i++) {
    if (s[i] == '%' && i + 2 < s.size() && Hex(s[i + 1]) >= 0 && Hex(s[i + 2]) >= 0) {
      out += static_cast<char>(Hex(s[i + 1]) << 4 | Hex(s[i + 2]));
      i += 2;
    } else {
      out += s[i];
    }
  }
  return out;
}

bool FitsInt64(const std::string& digits) {
  errno = 0;
  std::strtoll(digits.c_str(), nullptr, 10);
  return errno == 0;
}

const char* MethodName(evhttp_cmd_type t) {
  switch (t) {
    case EVHTTP_REQ_GET: return "GET";
    case EVHTTP_REQ_POST: return "POST";
    case EVHTTP_REQ_HEAD: return "HEAD";
    case EVHTTP_REQ_PUT: return "PUT";
    case EVHTTP_REQ_DELETE: return "DELETE";
    case EVHTTP_REQ_OPTIONS: return "OPTIONS";
    case EVHTTP_REQ_PATCH: return "PATCH";
    default: return "";
  }
}

Call Parse(const std::string& method, const std::string& target, const std::string& origin) {
  Call c;
  const Reply malformed = Error(400, "Malformed request: " + method + " " + target);
  if (method == "OPTIONS") {
    static const RE2 http_origin("https?://");
    c.refused = RE2::PartialMatch(origin, http_origin) ? Reply{200, ""} : malformed;
    return c;
  }
  std::string verb, sub;
  bool ok = false;
  if (method == "POST") {
    ok = RE2::FullMatch(target, kPrediction, &c.name, &c.version, &c.label, &verb);
  } else if (method == "GET") {
    ok = RE2::FullMatch(target, kModel, &c.name, &c.version, &c.label, &sub);
  }
  c.name = Unescape(c.name);
  c.label = Unescape(c.label);
  if (!c.version.empty() && !FitsInt64(c.version)) {
    c.refused = Error(400, "Failed to convert version: " + c.version + " to numeric.");
  } else if (!ok) {
    c.refused = malformed;
  } else if (method == "GET") {
    // The pattern ignores case, the comparison does not: /METADATA is status.
    c.op = sub == "metadata" ? "metadata" : "status";
    if (c.name.empty()) c.refused = Error(400, "Missing model name in request.");
  } else if (verb == "classify" || verb == "regress" || verb == "predict") {
    c.op = verb;
  } else {
    c.refused = malformed;  // :PREDICT matches, and is nobody's
  }
  return c;
}

bool WriteAll(int fd, const char* p, size_t n) {
  while (n > 0) {
    ssize_t k = write(fd, p, n);
    if (k <= 0) return false;
    p += k;
    n -= static_cast<size_t>(k);
  }
  return true;
}

bool ReadAll(int fd, char* p, size_t n) {
  while (n > 0) {
    ssize_t k = read(fd, p, n);
    if (k <= 0) return false;
    p += k;
    n -= static_cast<size_t>(k);
  }
  return true;
}

bool WriteField(int fd, const std::string& s) {
  const uint32_t n = static_cast<uint32_t>(s.size());
  const char len[4] = {static_cast<char>(n >> 24), static_cast<char>(n >> 16), static_cast<char>(n >> 8), static_cast<char>(n)};
  return WriteAll(fd, len, 4) && WriteAll(fd, s.data(), s.size());
}

bool ReadNumber(int fd, uint32_t* n) {
  unsigned char b[4];
  if (!ReadAll(fd, reinterpret_cast<char*>(b), 4)) return false;
  *n = uint32_t{b[0]} << 24 | uint32_t{b[1]} << 16 | uint32_t{b[2]} << 8 | b[3];
  return true;
}

// One exchange with serve.py.
Reply Compute(const std::string& path, const Call& c) {
  const Reply away = Error(503, "The model server is not there.");
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) return away;
  sockaddr_un a = {};
  a.sun_family = AF_UNIX;
  std::strncpy(a.sun_path, path.c_str(), sizeof a.sun_path - 1);
  Reply r;
  uint32_t status = 0, size = 0;
  bool ok = connect(fd, reinterpret_cast<sockaddr*>(&a), sizeof a) == 0;
  for (const std::string* f : {&c.op, &c.name, &c.version, &c.label, &c.encoding, &c.body}) ok = ok && WriteField(fd, *f);
  ok = ok && ReadNumber(fd, &status) && ReadNumber(fd, &size);
  if (ok) {
    r.status = static_cast<int>(status);
    r.body.resize(size);
    ok = ReadAll(fd, &r.body[0], size);
  }
  close(fd);
  return ok ? r : away;
}

class Front {
 public:
  Front(event_base* base, std::string socket) : base_(base), socket_(std::move(socket)) {}

  static void Handle(evhttp_request* req, void* self) { static_cast<Front*>(self)->Dispatch(req); }

 private:
  struct Pending {
    evhttp_request* req;
    Reply reply;
  };

  void Dispatch(evhttp_request* req) {
    const std::string method = MethodName(evhttp_request_get_command(req));
    std::unique_ptr<evhttp_uri, decltype(&evhttp_uri_free)> uri(evhttp_uri_parse(evhttp_request_get_uri(req)), evhttp_uri_free);
    if (!uri || method.empty()) {
      evhttp_send_error(req, HTTP_BADREQUEST, nullptr);
      return;
    }
    const char* path = evhttp_uri_get_path(uri.get());
    std::string target = path ? path : "/";
    if (const char* q = evhttp_uri_get_query(uri.get())) target += std::string("?") + q;
    if (const char* f = evhttp_uri_get_fragment(uri.get())) target += std::string("#") + f;
    if (!RE2::FullMatch(target, kAnyPath)) {
      evhttp_send_error(req, HTTP_NOTFOUND, nullptr);
      return;
    }
    const evkeyvalq* in = evhttp_request_get_input_headers(req);
    const char* origin = evhttp_find_header(in, "Origin");
    const char* encoding = evhttp_find_header(in, "Content-Encoding");
    Call call = Parse(method, target, origin ? origin : "");
    if (call.op.empty() || !call.refused.body.empty()) {
      Send(req, call.refused);
      return;
    }
    call.encoding = encoding ? encoding : "";
    evbuffer* body = evhttp_request_get_input_buffer(req);
    call.body.resize(evbuffer_get_length(body));
    evbuffer_remove(body, &call.body[0], call.body.size());
    // As TensorFlow Serving: work beside the event loop, answer from inside it.
    std::thread([this, req, call = std::move(call)] {
      auto* done = new Pending{req, Compute(socket_, call)};
      const timeval now = {0, 0};
      event_base_once(base_, -1, EV_TIMEOUT, Finish, done, &now);
    }).detach();
  }

  static void Finish(evutil_socket_t, short, void* arg) {
    std::unique_ptr<Pending> p(static_cast<Pending*>(arg));
    Send(p->req, p->reply);
  }

  static void Send(evhttp_request* req, const Reply& r) {
    evhttp_add_header(evhttp_request_get_output_headers(req), "Content-Type", "application/json");
    evbuffer* out = evbuffer_new();
    evbuffer_add(out, r.body.data(), r.body.size());
    evhttp_send_reply(req, r.status, nullptr, out);
    evbuffer_free(out);
  }

  event_base* base_;
  const std::string socket_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: rest_front ADDRESS PORT SOCKET\n");
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  if (evthread_use_pthreads() != 0) return 1;
  event_base* base = event_base_new();
  evhttp* http = evhttp_new(base);
  Front front(base, argv[3]);
  evhttp_set_allowed_methods(http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT |
                                       EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
  evhttp_set_gencb(http, &Front::Handle, &front);
  if (evhttp_bind_socket(http, argv[1], static_cast<uint16_t>(std::atoi(argv[2]))) != 0) {
    std::fprintf(stderr, "rest_front: cannot listen on %s:%s\n", argv[1], argv[2]);
    return 1;
  }
  std::printf("REST on %s:%s\n", argv[1], argv[2]);
  std::fflush(stdout);
  event_base_dispatch(base);
}
