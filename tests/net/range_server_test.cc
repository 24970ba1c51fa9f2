// The misbehaving server itself: what it is told to do is what goes over the wire, and what it logs is what went.
#include "tests/support/range_server.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <future>
#include <string>
#include <thread>

#include "base/file_descriptor.h"
#include "tests/support/pattern.h"

namespace wormhole::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using namespace std::chrono_literals;

struct Response {
  std::string head, body;
  int error = 0;  // errno of the read that ended it; 0: the server closed
};

// A client that believes nothing: sends the text, returns whatever comes until the connection ends.
class Client {
 public:
  explicit Client(const RangeServer& server) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(server.port());
    EXPECT_EQ(::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  }

  void ask(const std::string& path, const std::string& headers = "", const std::string& method = "GET") {
    const std::string text = method + " /" + path + " HTTP/1.1\r\nHost: x\r\n" + headers + "\r\n";
    EXPECT_EQ(::send(socket_.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  }

  // The next `length` bytes, or what there is until the end.
  std::string read(size_t length = SIZE_MAX) {
    std::string out;
    char piece[4096];
    while (out.size() < length) {
      const ssize_t n = ::recv(socket_.get(), piece, std::min(sizeof piece, length - out.size()), 0);
      if (n < 0) error_ = errno;
      if (n <= 0) break;
      out.append(piece, static_cast<size_t>(n));
    }
    return out;
  }

  int error() const { return error_; }

 private:
  FileDescriptor socket_;
  int error_ = 0;
};

Response get(const RangeServer& server, const std::string& path, const std::string& headers = "",
             const std::string& method = "GET") {
  Client client(server);
  client.ask(path, headers + "Connection: close\r\n", method);
  const std::string all = client.read();
  const size_t end = all.find("\r\n\r\n");
  if (end == std::string::npos) return {all, "", client.error()};
  return {all.substr(0, end + 2), all.substr(end + 4), client.error()};
}

bool is_pattern(const std::string& body, uint64_t seed, uint64_t offset) {
  return !first_mismatch(seed, offset, std::as_bytes(std::span(body)));
}

TEST(Pattern, AnyOffsetAgreesWithTheWhole) {
  const auto whole = expected_bytes(7, 0, 1000);
  for (const uint64_t offset : {0, 1, 7, 8, 9, 500, 991}) {
    const auto part = expected_bytes(7, offset, whole.size() - offset);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<ptrdiff_t>(offset))) << offset;
    EXPECT_EQ(expected_byte(7, offset), whole[offset]);
  }
}

TEST(Pattern, AWrongByteIsFoundAtItsOffset) {
  auto bytes = expected_bytes(7, 100, 10000);
  EXPECT_EQ(first_mismatch(7, 100, bytes), std::nullopt);
  bytes[9000] ^= std::byte{1};
  EXPECT_EQ(first_mismatch(7, 100, bytes), 9100u);
}

class RangeServerTest : public ::testing::Test {
 protected:
  void SetUp() override { server_.put("a", 200'000, 1); }

  // A range in the middle of "a", served with `behaviour`.
  Response get_with(Behaviour behaviour, const std::string& headers = "Range: bytes=1000-100999\r\n") {
    server_.behave("a", std::move(behaviour));
    return get(server_, "a", headers);
  }

  RangeServer server_;
};

TEST_F(RangeServerTest, ByTheBookARangeIs206WithItsBytes) {
  const Response r = get(server_, "a", "Range: bytes=1000-100999\r\n");
  EXPECT_THAT(r.head, StartsWith("HTTP/1.1 206 "));
  EXPECT_THAT(r.head, HasSubstr("Content-Range: bytes 1000-100999/200000\r\n"));
  EXPECT_THAT(r.head, HasSubstr("Content-Length: 100000\r\n"));
  EXPECT_EQ(r.body.size(), 100'000u);
  EXPECT_TRUE(is_pattern(r.body, 1, 1000));
}

TEST_F(RangeServerTest, OpenAndSuffixRangesEndAtTheEnd) {
  EXPECT_TRUE(is_pattern(get(server_, "a", "Range: bytes=199990-\r\n").body, 1, 199'990));
  EXPECT_EQ(get(server_, "a", "Range: bytes=-5\r\n").body.size(), 5u);
  EXPECT_EQ(get(server_, "a", "Range: bytes=199999-300000\r\n").body.size(), 1u);
}

TEST_F(RangeServerTest, ARangeBehindTheEndIs416) {
  const Response r = get(server_, "a", "Range: bytes=200000-200001\r\n");
  EXPECT_THAT(r.head, StartsWith("HTTP/1.1 416 "));
  EXPECT_THAT(r.head, HasSubstr("Content-Range: bytes */200000\r\n"));
}

TEST_F(RangeServerTest, HeadSendsNoBody) {
  const Response r = get(server_, "a", "", "HEAD");
  EXPECT_THAT(r.head, HasSubstr("Content-Length: 200000\r\n"));
  EXPECT_EQ(r.body, "");
}

TEST_F(RangeServerTest, AConnectionCarriesManyRequests) {
  Client client(server_);
  for (int i = 0; i < 3; ++i) {
    client.ask("a", "Range: bytes=0-9\r\n");
    std::string head;
    while (!head.ends_with("\r\n\r\n")) head += client.read(1);
    EXPECT_TRUE(is_pattern(client.read(10), 1, 0));
  }
  const auto log = server_.requests("a");
  ASSERT_EQ(log.size(), 3u);
  EXPECT_EQ(log[0].connection, log[2].connection);
}

TEST_F(RangeServerTest, IfRangeOfAnOldVersionGetsTheWholeNewOne) {
  const std::string head = get(server_, "a").head;
  const size_t at = head.find("ETag: ") + 6;
  const std::string header = "Range: bytes=0-9\r\nIf-Range: " + head.substr(at, head.find("\r\n", at) - at) + "\r\n";
  EXPECT_THAT(get(server_, "a", header).head, StartsWith("HTTP/1.1 206 "));
  server_.put("a", 300'000, 2, 2);
  const Response r = get(server_, "a", header);
  EXPECT_THAT(r.head, StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(r.body.size(), 300'000u);
  EXPECT_TRUE(is_pattern(r.body, 2, 0));
}

TEST_F(RangeServerTest, ValidatorsAreThoseAskedFor) {
  using V = Behaviour::Validators;
  EXPECT_THAT(get_with({.validators = V::kStrongEtag}).head, HasSubstr("\r\nETag: \""));
  EXPECT_THAT(get_with({.validators = V::kWeakEtag}).head, HasSubstr("\r\nETag: W/\""));
  const std::string dated = get_with({.validators = V::kLastModified}).head;
  EXPECT_THAT(dated, Not(HasSubstr("ETag")));
  EXPECT_THAT(dated, HasSubstr("Last-Modified: Thu, 01 Jan 2026 00:01:00 GMT\r\n"));
  EXPECT_THAT(get_with({.validators = V::kNone}).head, Not(HasSubstr("Last-Modified")));
}

TEST_F(RangeServerTest, AnIgnoredRangeIs200WithTheWholeBody) {
  const Response r = get_with({.ignore_range = true});
  EXPECT_THAT(r.head, StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(r.body.size(), 200'000u);
}

TEST_F(RangeServerTest, ContentRangeCanLieOrBeMissing) {
  using C = Behaviour::ContentRange;
  EXPECT_THAT(get_with({.content_range = C::kWrong}).head, HasSubstr("Content-Range: bytes 1001-101000/200000"));
  EXPECT_THAT(get_with({.content_range = C::kMissing}).head, Not(HasSubstr("Content-Range")));
}

TEST_F(RangeServerTest, ABodyCanEndEarlyInGoodOrderOrByReset) {
  const Response closed = get_with({.close_after = 5000});
  EXPECT_EQ(closed.body.size(), 5000u);
  EXPECT_EQ(closed.error, 0);
  const Response reset = get_with({.reset_after = 5000});
  EXPECT_EQ(reset.body.size(), 5000u);
  EXPECT_EQ(reset.error, ECONNRESET);
}

TEST_F(RangeServerTest, ABodyCanBeLongerThanAnnounced) {
  const Response r = get_with({.extra = 10});
  EXPECT_THAT(r.head, HasSubstr("Content-Length: 100000\r\n"));
  EXPECT_EQ(r.body.size(), 100'010u);
}

TEST_F(RangeServerTest, AChunkedBodyHasNoLength) {
  const Response r = get_with({.chunked = true}, "Range: bytes=0-9\r\n");
  EXPECT_THAT(r.head, Not(HasSubstr("Content-Length")));
  EXPECT_THAT(r.body, StartsWith("a\r\n"));
  EXPECT_THAT(r.body, ::testing::EndsWith("\r\n0\r\n\r\n"));
}

TEST_F(RangeServerTest, AGzippedRangeIsAGzipStream) {
  const Response r = get_with({.gzip = true}, "Range: bytes=0-9\r\n");
  EXPECT_THAT(r.head, HasSubstr("Content-Encoding: gzip\r\n"));
  EXPECT_THAT(r.body, StartsWith("\x1f\x8b"));
  EXPECT_TRUE(is_pattern(r.body.substr(15, 10), 1, 0));  // 10 bytes of header, 5 of the stored block
}

TEST_F(RangeServerTest, Http10EndsTheConnection) {
  const Response r = get_with({.http10 = true});
  EXPECT_THAT(r.head, StartsWith("HTTP/1.0 206 "));
  EXPECT_THAT(r.head, Not(HasSubstr("Content-Length")));
  EXPECT_EQ(r.body.size(), 100'000u);
}

TEST_F(RangeServerTest, ADripTakesItsTime) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(get_with({.bytes_per_second = 1'000'000}).body.size(), 100'000u);
  EXPECT_GT(std::chrono::steady_clock::now() - begin, 80ms);
}

TEST_F(RangeServerTest, AnErrorLastsAsOftenAsItWasToldTo) {
  server_.behave("a", {.times = 2, .status = 503, .retry_after = 7});
  for (int i = 0; i < 2; ++i) {
    const Response r = get(server_, "a");
    EXPECT_THAT(r.head, StartsWith("HTTP/1.1 503 "));
    EXPECT_THAT(r.head, HasSubstr("Retry-After: 7\r\n"));
  }
  EXPECT_THAT(get(server_, "a").head, StartsWith("HTTP/1.1 200 "));
}

TEST_F(RangeServerTest, ARedirectNamesItsTarget) {
  const Response r = get_with({.redirect = server_.url("b")});
  EXPECT_THAT(r.head, StartsWith("HTTP/1.1 302 "));
  EXPECT_THAT(r.head, HasSubstr("Location: " + server_.url("b") + "\r\n"));
}

TEST_F(RangeServerTest, AHeldRequestIsLoggedAndWaits) {
  server_.hold("a");
  auto answer = std::async(std::launch::async, [&] { return get(server_, "a"); });
  EXPECT_TRUE(server_.wait_for_requests("a", 1));
  EXPECT_EQ(answer.wait_for(50ms), std::future_status::timeout);
  EXPECT_EQ(server_.requests("a")[0].status, 0);
  server_.release("a");
  EXPECT_EQ(answer.get().body.size(), 200'000u);
}

TEST_F(RangeServerTest, AReleaseOfOneLetsTheFirstGo) {
  server_.hold("a");
  auto first = std::async(std::launch::async, [&] { return get(server_, "a"); });
  ASSERT_TRUE(server_.wait_for_requests("a", 1));
  auto second = std::async(std::launch::async, [&] { return get(server_, "a"); });
  ASSERT_TRUE(server_.wait_for_requests("a", 2));
  server_.release("a", 1);
  first.get();
  EXPECT_EQ(second.wait_for(50ms), std::future_status::timeout);
  server_.release("a");
  second.get();
}

TEST_F(RangeServerTest, AStalledBodyGoesOnWhenReleased) {
  server_.behave("a", {.stall_after = 5000});
  Client client(server_);
  client.ask("a", "Connection: close\r\n");
  std::string head;
  while (!head.ends_with("\r\n\r\n")) head += client.read(1);
  EXPECT_TRUE(is_pattern(client.read(5000), 1, 0));
  EXPECT_EQ(server_.body_bytes("a"), 5000u);
  server_.release("a");
  EXPECT_EQ(client.read().size(), 195'000u);
}

TEST_F(RangeServerTest, AnAnswerUnderWayStaysTheVersionItBeganWith) {
  server_.behave("a", {.times = 1, .stall_after = 5000});
  auto answer = std::async(std::launch::async, [&] { return get(server_, "a"); });
  while (server_.body_bytes("a") < 5000) std::this_thread::sleep_for(1ms);
  server_.put("a", 200'000, 2, 2);
  server_.release("a");
  EXPECT_TRUE(is_pattern(answer.get().body, 1, 0));
  EXPECT_TRUE(is_pattern(get(server_, "a").body, 2, 0));
}

TEST_F(RangeServerTest, StoppingEndsHeldAndStalledRequests) {
  auto server = std::make_unique<RangeServer>();
  server->put("a", 100'000, 1);
  server->put("b", 100'000, 1);
  server->hold("a");
  server->behave("b", {.stall_after = 10});
  auto held = std::async(std::launch::async, [&] { return get(*server, "a"); });
  auto stalled = std::async(std::launch::async, [&] { return get(*server, "b"); });
  ASSERT_TRUE(server->wait_for_requests("a", 1));
  ASSERT_TRUE(server->wait_for_requests("b", 1));
  server.reset();
  EXPECT_EQ(held.get().head, "");
  EXPECT_LE(stalled.get().body.size(), 10u);
}

TEST_F(RangeServerTest, TheLogTellsWhatWasAskedAndSent) {
  get(server_, "a", "Range: bytes=0-9\r\nIf-Range: \"x\"\r\n");
  get(server_, "none");
  const auto log = server_.requests();
  ASSERT_EQ(log.size(), 2u);
  EXPECT_EQ(log[0].method, "GET");
  EXPECT_EQ(log[0].path, "a");
  EXPECT_EQ(log[0].range, "bytes=0-9");
  EXPECT_EQ(log[0].if_range, "\"x\"");
  EXPECT_EQ(log[0].status, 200);  // no such version: the whole
  EXPECT_EQ(log[0].body_bytes, 200'000u);
  EXPECT_EQ(log[1].status, 404);
  EXPECT_NE(log[0].connection, log[1].connection);
  server_.forget_requests();
  EXPECT_TRUE(server_.requests().empty());
}

TEST_F(RangeServerTest, ADirectoryIsListedInNginxStyle) {
  server_.put("d/x y&z", 42, 1, 3);
  const Response root = get(server_, "");
  EXPECT_THAT(root.head, HasSubstr("Content-Type: text/html\r\n"));
  EXPECT_THAT(root.body, HasSubstr("<a href=\"d/\">d/</a> 01-Jan-2026 00:00                   -\r\n"));
  EXPECT_THAT(root.body, HasSubstr("<a href=\"a\">a</a> 01-Jan-2026 00:01              200000\r\n"));
  EXPECT_THAT(get(server_, "d/").body, HasSubstr("<a href=\"x%20y%26z\">x y&amp;z</a> 01-Jan-2026 00:03 "));
  EXPECT_THAT(get(server_, "d").head, HasSubstr("Location: /d/\r\n"));
  EXPECT_EQ(get(server_, "d/x%20y%26z").body.size(), 42u);
}

}  // namespace
}  // namespace wormhole::test
