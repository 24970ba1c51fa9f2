#include "net/request_setup.h"

#include <strings.h>
#include <sys/socket.h>

#include <algorithm>
#include <ctime>

#include "net/aws_signature.h"
#include "net/range_header.h"

namespace wormhole {
namespace {

// What libcurl receives with one call. Larger saves calls; 128 KiB still lies in the L2 cache when it is copied on.
constexpr long kReceiveBuffer = 128 * 1024;

// A transfer slower than this for that long is given up and resumed on another connection: less than 1 KiB/s is no
// speed of a path that works.
constexpr long kStallBytesPerSecond = 1024;
constexpr long kStallSeconds = 10;

constexpr long kMaxRedirects = 8;

// Idle connections older than this are not used again; servers close theirs after 5 to 300 s by themselves.
constexpr long kLongestIdle = 300;

// QUIC is tried where TCP is known to work: what has not come about by then does not come through.
constexpr Duration kQuicConnectTimeout = std::chrono::milliseconds(1500);

long milliseconds(Duration d) {
  return std::max<long>(1, std::chrono::duration_cast<std::chrono::milliseconds>(d).count());
}

// Received datagrams wait in the socket's buffer, and what does not fit is lost: at 50 ms and 1 Gbit/s the default
// (208 KiB) carries 15 MB/s, 8 MiB carry 88. FORCE needs CAP_NET_ADMIN; without it net.core.rmem_max is the bound.
int enlarge_udp_buffer(void*, curl_socket_t socket, curlsocktype) {
  int type = 0;
  socklen_t length = sizeof type;
  if (::getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_DGRAM) return CURL_SOCKOPT_OK;
  const int size = RequestSetup::kUdpBuffer;
  if (::setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size) != 0)
    ::setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
  return CURL_SOCKOPT_OK;
}

bool stays_here(const std::string& header) {
  const std::string name = header.substr(0, header.find(':'));
  return ::strcasecmp(name.c_str(), "authorization") == 0 || ::strcasecmp(name.c_str(), "cookie") == 0;
}

int refuse_other_hosts(void* attempt, char*, char*, int, int) {
  auto* a = static_cast<Attempt*>(attempt);
  const char* url = nullptr;
  ::curl_easy_getinfo(a->easy, CURLINFO_EFFECTIVE_URL, &url);
  const auto going_to = Url::parse(url != nullptr ? url : "");
  const auto asked = Url::parse(a->url);
  if (going_to && asked && going_to->same_origin(*asked)) return CURL_PREREQFUNC_OK;
  a->refused =
      Error{ErrorCode::kForbidden,
            fmt::format("{}: redirects to another server, which must not see the headers that identify us", a->url)};
  return CURL_PREREQFUNC_ABORT;
}

void add_header(Attempt& a, const std::string& line) { a.headers = ::curl_slist_append(a.headers, line.c_str()); }

}  // namespace

void RequestSetup::apply(Attempt& a) {
  CURL* e = a.easy;
  ::curl_easy_setopt(e, CURLOPT_URL, a.url.c_str());
  ::curl_easy_setopt(e, CURLOPT_PRIVATE, &a);
  ::curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
  ::curl_easy_setopt(e, CURLOPT_ERRORBUFFER, a.error_detail);
  ::curl_easy_setopt(e, CURLOPT_USERAGENT, "wormhole/" WORMHOLE_VERSION);
  ::curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
  ::curl_easy_setopt(e, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  ::curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 1L);
  ::curl_easy_setopt(e, CURLOPT_MAXREDIRS, kMaxRedirects);
  ::curl_easy_setopt(e, CURLOPT_BUFFERSIZE, kReceiveBuffer);
  ::curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, kStallBytesPerSecond);
  ::curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
  ::curl_easy_setopt(e, CURLOPT_MAXAGE_CONN, kLongestIdle);
  if (!options_.proxy.empty()) ::curl_easy_setopt(e, CURLOPT_PROXY, options_.proxy.c_str());
  set_transport(a);
  set_tls(a);
  set_interface(e);
  set_identity(a);
  set_what_is_asked(a);
  if (a.headers != nullptr) ::curl_easy_setopt(e, CURLOPT_HTTPHEADER, a.headers);
}

void RequestSetup::set_transport(Attempt& a) const {
  long version = CURL_HTTP_VERSION_2TLS;
  Duration connect = std::min(options_.connect_timeout, a.transfer->patience());
  if (a.transport == Transport::kQuic) {
    version = CURL_HTTP_VERSION_3ONLY;
    connect = std::min(connect, kQuicConnectTimeout);
    ::curl_easy_setopt(a.easy, CURLOPT_SOCKOPTFUNCTION, &enlarge_udp_buffer);
  } else if (options_.http == HttpVersion::k1_1) {
    version = CURL_HTTP_VERSION_1_1;
  } else if (options_.http == HttpVersion::k2) {
    version = CURL_HTTP_VERSION_2_0;
  }
  ::curl_easy_setopt(a.easy, CURLOPT_HTTP_VERSION, version);
  ::curl_easy_setopt(a.easy, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(connect));
}

void RequestSetup::set_tls(Attempt& a) const {
  CURL* e = a.easy;
  if (!options_.ca_file.empty()) ::curl_easy_setopt(e, CURLOPT_CAINFO, options_.ca_file.c_str());
  if (!a.server->is_origin()) return;  // who we are is for the origin
  if (!options_.certificate_file.empty()) ::curl_easy_setopt(e, CURLOPT_SSLCERT, options_.certificate_file.c_str());
  if (!options_.key_file.empty()) ::curl_easy_setopt(e, CURLOPT_SSLKEY, options_.key_file.c_str());
}

// The origin's alone: a mirror is somebody else.
void RequestSetup::set_identity(Attempt& a) const {
  if (!a.server->is_origin()) return;
  const CredentialOptions& c = credentials_.options();
  const AwsKeys& keys = credentials_.aws();
  const bool is_signed = !keys.id.empty();
  if (is_signed) {
    sign(a);
  } else if (!credentials_.token().empty()) {
    ::curl_easy_setopt(a.easy, CURLOPT_HTTPAUTH, static_cast<long>(CURLAUTH_BEARER));
    ::curl_easy_setopt(a.easy, CURLOPT_XOAUTH2_BEARER, credentials_.token().c_str());
  } else if (!c.user.empty()) {
    ::curl_easy_setopt(a.easy, CURLOPT_USERNAME, c.user.c_str());
    ::curl_easy_setopt(a.easy, CURLOPT_PASSWORD, c.password.c_str());
  } else if (!c.netrc_file.empty()) {
    ::curl_easy_setopt(a.easy, CURLOPT_NETRC, static_cast<long>(CURL_NETRC_REQUIRED));
    ::curl_easy_setopt(a.easy, CURLOPT_NETRC_FILE, c.netrc_file.c_str());
  }
  for (const std::string& header : credentials_.headers()) add_header(a, header);
  // libcurl keeps Authorization and Cookie from another host that a redirect names, and no other header.
  const bool all_stay = std::all_of(credentials_.headers().begin(), credentials_.headers().end(), &stays_here);
  if (all_stay && !is_signed) return;
  ::curl_easy_setopt(a.easy, CURLOPT_PREREQFUNCTION, &refuse_other_hosts);
  ::curl_easy_setopt(a.easy, CURLOPT_PREREQDATA, &a);
}

void RequestSetup::sign(Attempt& a) const {
  const auto url = Url::parse(a.url);
  if (!url) return;  // then it cannot be asked either
  const Transfer& t = *a.transfer;
  const bool is_head = t.document && t.document->head_only;
  const std::string method = is_head ? "HEAD" : "GET";
  for (const std::string& header :
       aws_signature(method, *url, credentials_.aws(), credentials_.options().aws_region, ::time(nullptr)))
    add_header(a, header);
}

void RequestSetup::set_interface(CURL* e) {
  if (options_.interfaces.empty()) return;
  const std::string& name = options_.interfaces[next_interface_++ % options_.interfaces.size()];
  ::curl_easy_setopt(e, CURLOPT_INTERFACE, name.c_str());
}

void RequestSetup::set_what_is_asked(Attempt& a) const {
  CURL* e = a.easy;
  const Transfer& t = *a.transfer;
  if (t.document) {
    if (t.document->head_only) ::curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
    // A listing compresses well; a range must come as it is.
    if (!t.document->head_only) ::curl_easy_setopt(e, CURLOPT_ACCEPT_ENCODING, "");
    if (!t.document->method.empty()) {
      ::curl_easy_setopt(e, CURLOPT_POSTFIELDS, t.document->body.c_str());  // stays where it is
      ::curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE, static_cast<long>(t.document->body.size()));
      ::curl_easy_setopt(e, CURLOPT_POSTREDIR, static_cast<long>(CURL_REDIR_POST_ALL));
      ::curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, t.document->method.c_str());
    }
    for (const std::string& header : t.document->headers) add_header(a, header);
    return;
  }
  if (t.is_whole_body()) return;
  ::curl_easy_setopt(e, CURLOPT_RANGE, range_header(a.range).c_str());
  // Of a mirror: by its date (attempt.cc).
  const std::string& condition =
      a.server->is_origin() || t.validator.last_modified.empty() ? t.validator.if_range() : t.validator.last_modified;
  if (!condition.empty()) add_header(a, "If-Range: " + condition);
}

}  // namespace wormhole
