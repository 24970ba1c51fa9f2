#include "net/http_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/file_descriptor.h"
#include "net/listing.h"
#include "net/served_directory.h"
#include "net/url.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;
namespace fs = std::filesystem;

struct Response {
  int status = 0;
  std::string head, body;

  std::string header(const std::string& name) const {
    const size_t at = head.find("\r\n" + name + ": ");
    if (at == head.npos) return "";
    const size_t begin = at + name.size() + 4;
    return head.substr(begin, head.find("\r\n", begin) - begin);
  }
};

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    fs::create_directory(root_);
    write(top_ / "secret", "secret");
  }

  static void write(const fs::path& path, std::string_view content) {
    std::ofstream(path, std::ios::binary) << content;
  }

  static void write_zeros(const fs::path& path, uint64_t size) {
    write(path, "");
    fs::resize_file(path, size);
  }

  void start(HttpServerOptions options = {}) {
    options.directory = root_;
    options.grace = std::min(options.grace, std::chrono::milliseconds(1000));
    options.log = [this](std::string_view line) {
      const std::lock_guard lock(log_mutex_);
      log_.emplace_back(line);
    };
    Result<std::unique_ptr<HttpServer>> server = HttpServer::start(options);
    ASSERT_TRUE(server.has_value()) << server.error().message;
    server_ = std::move(*server);
  }

  FileDescriptor connect() const {
    FileDescriptor fd(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(server_->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
  }

  static void send_text(const FileDescriptor& fd, std::string_view text) {
    EXPECT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }

  // Sends a request as it is; what comes back until the server closes.
  Response exchange(const std::string& request) const {
    const FileDescriptor fd = connect();
    send_text(fd, request);
    std::string text;
    char piece[65536];
    for (ssize_t n; (n = ::recv(fd.get(), piece, sizeof piece, 0)) > 0;) text.append(piece, static_cast<size_t>(n));
    const size_t end = text.find("\r\n\r\n");
    if (end == text.npos) return {0, text, ""};
    return {std::stoi(text.substr(9, 3)), text.substr(0, end + 2), text.substr(end + 4)};
  }

  Response ask(const std::string& method, const std::string& path, const std::string& headers = "") const {
    return exchange(method + " " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + "\r\n");
  }
  Response get(const std::string& path, const std::string& headers = "") const { return ask("GET", path, headers); }

  std::vector<std::string> listed(const std::string& path) const {
    const auto parser = make_html_listing_parser(*Url::parse(server_->url()).value().resolve(path));
    EXPECT_TRUE(parser->feed(get(path).body));
    const Result<Listing> listing = parser->finish();
    EXPECT_TRUE(listing.has_value()) << listing.error().message;
    std::vector<std::string> names;
    if (listing) {
      for (const ListedEntry& e : listing->entries) {
        names.push_back(e.name + (e.type == EntryType::kDirectory ? "/" : ":" + std::to_string(e.size.value_or(999))));
      }
    }
    return names;
  }

  const test::TemporaryDirectory directory_;
  const fs::path top_ = directory_.path();
  const fs::path root_ = top_ / "served";
  std::mutex log_mutex_;
  std::vector<std::string> log_;
  std::unique_ptr<HttpServer> server_;  // ends first: it writes the log
};

// --- files ------------------------------------------------------------------------------------------

TEST_F(HttpServerTest, ServesAFile) {
  write(root_ / "a.txt", "0123456789");
  start();
  const Response response = get("/a.txt");
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "0123456789");
  EXPECT_EQ(response.header("Content-Length"), "10");
  EXPECT_EQ(response.header("Accept-Ranges"), "bytes");
  EXPECT_EQ(response.header("Content-Type"), "text/plain; charset=utf-8");
  EXPECT_THAT(response.header("ETag"), StartsWith("\""));
  EXPECT_THAT(response.header("Last-Modified"), HasSubstr(" GMT"));
}

TEST_F(HttpServerTest, ServesAnEmptyFile) {
  write(root_ / "empty", "");
  start();
  EXPECT_EQ(get("/empty").status, 200);
  EXPECT_EQ(get("/empty").header("Content-Length"), "0");
}

TEST_F(HttpServerTest, AnswersHeadWithoutABody) {
  write(root_ / "a", "0123456789");
  start();
  const Response response = ask("HEAD", "/a", "Range: bytes=0-1\r\n");
  EXPECT_EQ(response.status, 200) << "ranges are for GET";
  EXPECT_EQ(response.header("Content-Length"), "10");
  EXPECT_EQ(response.body, "");
}

TEST_F(HttpServerTest, HeadSaysWhatGetWouldSay) {
  write(root_ / "small.txt", "0123456789");
  write_zeros(root_ / "large.mp4", 200'000);
  fs::create_directory(root_ / "d");
  start();
  const std::string etag = get("/small.txt").header("ETag");
  const auto without_date = [](std::string head) {
    const size_t at = head.find("\r\nDate: ");
    return at == head.npos ? head : head.erase(at, head.find("\r\n", at + 2) - at);
  };
  for (const std::string& headers :
       {std::string(), "If-None-Match: " + etag + "\r\n", std::string("If-Match: \"x\"\r\n")}) {
    for (const char* path : {"/", "/d", "/d/", "/small.txt", "/large.mp4", "/missing"}) {
      const Response head = ask("HEAD", path, headers);
      EXPECT_EQ(without_date(head.head), without_date(get(path, headers).head)) << path << " " << headers;
      EXPECT_EQ(head.body, "") << path;
    }
  }
}

// Up to a size bodies are copied, from there on sendfile is used.
TEST_F(HttpServerTest, ServesFilesOfEverySize) {
  std::string content(200'000, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 2654435761u >> 13);
  start();
  for (const size_t size : {1, 2, 4095, 4096, 65535, 65536, 65537, 131072, 200000}) {
    const std::string part = content.substr(0, size);
    write(root_ / "a", part);
    EXPECT_TRUE(get("/a").body == part) << size;
    EXPECT_TRUE(get("/a", "Range: bytes=1-\r\n").body == part.substr(1) || size == 1) << size;
    EXPECT_TRUE(get("/a", "Range: bytes=-1\r\n").body == part.substr(size - 1)) << size;
  }
}

TEST_F(HttpServerTest, AFileThatChangesWhileItIsReadIsNotTaken) {
  write(root_ / "a", "0123456789");
  const Result<ServedDirectory> directory = ServedDirectory::open(root_);
  ASSERT_TRUE(directory.has_value());
  const Result<ServedPath> path = ServedPath::parse("/a");
  std::string bytes(4, ' ');
  Result<ServedFile> file = directory->find(*path);
  EXPECT_TRUE(file->read(bytes, 3));
  EXPECT_EQ(bytes, "3456");
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the kernel's clock for files has ticks
  write(root_ / "a", "abcdefghij");
  EXPECT_FALSE(file->read(bytes, 3));
  file = directory->find(*path);
  fs::resize_file(root_ / "a", 5);
  EXPECT_FALSE(file->read(bytes, 3)) << "it ends before";
}

TEST_F(HttpServerTest, ServesARange) {
  write(root_ / "a", "0123456789");
  start();
  const Response response = get("/a", "Range: bytes=2-4\r\n");
  EXPECT_EQ(response.status, 206);
  EXPECT_EQ(response.body, "234");
  EXPECT_EQ(response.header("Content-Range"), "bytes 2-4/10");
  EXPECT_EQ(response.header("Content-Length"), "3");
  EXPECT_EQ(get("/a", "Range: bytes=0-1,3-4\r\n").body, "0123456789");
}

TEST_F(HttpServerTest, RefusesARangeOutsideTheFile) {
  write(root_ / "a", "0123456789");
  start();
  const Response response = get("/a", "Range: bytes=10-\r\n");
  EXPECT_EQ(response.status, 416);
  EXPECT_EQ(response.header("Content-Range"), "bytes */10");
}

TEST_F(HttpServerTest, KnowsVersions) {
  write(root_ / "a", "0123456789");
  start();
  const std::string etag = get("/a").header("ETag");
  EXPECT_EQ(get("/a", "Range: bytes=0-1\r\nIf-Range: " + etag + "\r\n").status, 206);
  const Response unmodified = get("/a", "If-None-Match: " + etag + "\r\n");
  EXPECT_EQ(unmodified.status, 304);
  EXPECT_EQ(unmodified.header("ETag"), etag);
  EXPECT_EQ(unmodified.body, "");

  write(root_ / "a", "abcdefghij");
  EXPECT_NE(get("/a").header("ETag"), etag);
  EXPECT_EQ(get("/a", "Range: bytes=0-1\r\nIf-Range: " + etag + "\r\n").body, "abcdefghij");
  EXPECT_EQ(get("/a", "Range: bytes=0-1\r\nIf-Match: " + etag + "\r\n").status, 412);
  EXPECT_EQ(get("/a", "If-None-Match: " + etag + "\r\n").status, 200);
}

TEST_F(HttpServerTest, ServesLargeFilesAtAnyOffset) {
  std::string content(5'000'000, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 2654435761u >> 13);
  write(root_ / "big", content);
  start();
  EXPECT_TRUE(get("/big").body == content);
  EXPECT_TRUE(get("/big", "Range: bytes=1234567-4000000\r\n").body == content.substr(1234567, 4000001 - 1234567));
}

TEST_F(HttpServerTest, KeepsAConnectionForTheNextRequest) {
  write(root_ / "a", "first");
  write(root_ / "b", "second");
  start();
  const Response both =
      exchange("GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(both.body, StartsWith("firstHTTP/1.1 200"));
  EXPECT_THAT(both.body, HasSubstr("\r\n\r\nsecond"));
}

// --- what cannot be had -----------------------------------------------------------------------------

TEST_F(HttpServerTest, SaysNotFound) {
  write(root_ / "a", "x");
  start();
  for (const char* path : {"/b", "/a/", "/a/b", "/a%2", "/%zz", "/a%00"}) EXPECT_EQ(get(path).status, 404) << path;
}

TEST_F(HttpServerTest, TakesOnlyGetAndHead) {
  start();
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "TRACE", "FOO"}) {
    const Response response = ask(method, "/", "Content-Length: 4\r\n\r\nbody");
    EXPECT_EQ(response.status, 405) << method;
    EXPECT_EQ(response.header("Allow"), "GET, HEAD, OPTIONS");
  }
  for (const char* path : {"/", "/missing", "*"}) {
    const Response response = ask("OPTIONS", path);
    EXPECT_EQ(response.status, 204) << path;
    EXPECT_EQ(response.header("Allow"), "GET, HEAD, OPTIONS");
  }
}

TEST_F(HttpServerTest, RefusesARequestThatIsTooLong) {
  write(root_ / "a", "x");
  start();
  const int status = get("/a", "X: " + std::string(100'000, 'x') + "\r\n").status;
  EXPECT_TRUE(status == 431 || status == 0) << status;  // 0: closed before all of it was sent
  EXPECT_EQ(get("/a").status, 200);
}

// What two servers in a row could cut differently is never followed by another request on the same connection.
TEST_F(HttpServerTest, NobodySmugglesARequest) {
  write(root_ / "a", "first");
  write(root_ / "b", "second");
  start();
  for (const char* headers :
       {"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 3\r\nContent-Length: 0\r\n\r\n", "Content-Length : 3\r\n\r\n",
        "Transfer-Encoding : chunked\r\n\r\n", "Content-Length: 5\r\n\r\nhello", "Content-Length: +3\r\n\r\nabc"}) {
    const Response response = exchange("GET /a HTTP/1.1\r\nHost: x\r\n" + std::string(headers) +
                                       "GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_THAT(response.body, Not(HasSubstr("second"))) << headers;
  }
  EXPECT_EQ(exchange("GET /a HTTP/1.1\r\n\r\n").status, 400) << "HTTP/1.1 has a Host";
}

// --- who may ask ------------------------------------------------------------------------------------

TEST_F(HttpServerTest, AnswersOnlyWhoHasTheToken) {
  write(root_ / "a", "content");
  start({.secrets = {.token = "t0ken"}});
  for (const char* headers : {"", "Authorization: Bearer wrong\r\n", "Authorization: Basic t0ken\r\n"}) {
    for (const char* path : {"/", "/a", "/missing"}) {
      const Response response = get(path, headers);
      EXPECT_EQ(response.status, 401) << path;
      EXPECT_THAT(response.header("WWW-Authenticate"), StartsWith("Bearer"));
      EXPECT_THAT(response.body, Not(HasSubstr("content")));
    }
  }
  EXPECT_EQ(get("/a", "Authorization: Bearer t0ken\r\n").body, "content");
  EXPECT_EQ(get("/missing", "Authorization: Bearer t0ken\r\n").status, 404);
  EXPECT_EQ(ask("DELETE", "/a").status, 401);
}

TEST_F(HttpServerTest, TheTokenCanBeReplaced) {
  write(root_ / "a", "content");
  start({.secrets = {.token = "old"}});
  ASSERT_TRUE(server_->replace_secrets({.token = "new"}).has_value());
  EXPECT_EQ(get("/a", "Authorization: Bearer old\r\n").status, 401);
  EXPECT_EQ(get("/a", "Authorization: Bearer new\r\n").status, 200);
  EXPECT_FALSE(server_->replace_secrets({.certificate = "x", .key = "y"}).has_value()) << "it began without TLS";
}

TEST_F(HttpServerTest, NeverLeavesTheDirectory) {
  fs::create_symlink("../secret", root_ / "link-out");
  fs::create_symlink(top_ / "secret", root_ / "absolute-link");
  fs::create_symlink("..", root_ / "up");
  fs::create_symlink("/proc/self/root", root_ / "magic");
  start();
  for (const char* path :
       {"/../secret", "/%2e%2e/secret", "/..%2fsecret", "/x/../../secret", "/link-out", "/absolute-link", "/up/secret",
        "/up/", "/magic/etc/passwd", "//../secret", "/./../secret", "/..", "/.%2e/"}) {
    const Response response = get(path);
    EXPECT_EQ(response.status, 404) << path;
    EXPECT_THAT(response.body, Not(HasSubstr("secret"))) << path;
  }
  EXPECT_EQ(exchange("GET http://x/secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").status, 400);
  EXPECT_THAT(listed("/"), IsEmpty());
}

TEST_F(HttpServerTest, NoSpellingLeavesTheDirectory) {
  fs::create_directory(root_ / "d");
  start();
  for (const char* path : {"/%2e%2e%2fsecret", "/%2E%2E/secret", "/%252e%252e/secret", "/%c0%ae%c0%ae/secret",
                           "/%c0%ae%c0%ae%c0%afsecret", "/..%c0%afsecret", "/%e0%80%ae%e0%80%ae/secret", "/..%5csecret",
                           "/..\\secret", "/d/..;/../secret", "/..%00/secret", "/secret%00", "/d/%2e%2e/%2e%2e/secret",
                           "/d//..//..//secret", "/..?/secret", "/.../secret", "/%u002e%u002e/secret"}) {
    const Response response = get(path);
    EXPECT_TRUE(response.status == 404 || response.status == 400) << path << " " << response.status;
    EXPECT_NE(response.body, "secret") << path;
  }
}

TEST_F(HttpServerTest, ServesTheHiddenDirectoryAndDoesNotListIt) {
  fs::create_directories(root_ / ".wormhole");
  fs::create_directories(root_ / "d/.wormhole");
  write(root_ / ".wormhole/manifest", "m");
  write(root_ / ".wormholes", "x");
  start();
  EXPECT_EQ(get("/.wormhole/manifest").body, "m");
  EXPECT_THAT(listed("/"), ElementsAre("d/", ".wormholes:1"));
  EXPECT_THAT(listed("/d/"), ElementsAre(".wormhole/")) << "it is hidden in the root alone";
}

TEST_F(HttpServerTest, AHiddenDirectoryMayLieElsewhere) {
  fs::create_directories(root_ / ".wormhole");
  write(root_ / ".wormhole/manifest", "of the tree");
  write(root_ / ".wormhole/more", "of the tree");
  for (const fs::path& place : {top_ / "place", root_ / "d/place"}) {
    fs::create_directories(place);
    write(place / "manifest", place.string());
    fs::create_symlink("../secret", place / "manifest-out");
    write(place / "more", "somebody else's");
    fs::create_directories(place / "manifest-d");
    write(place / "manifest-d/more", "somebody else's");
    HttpServerOptions options;
    options.hidden = place;
    start(options);
    EXPECT_EQ(get("/.wormhole/manifest").body, place.string());
    for (const std::string name : {"/more", "/manifest-out", "/manifest-d/more", "/../secret", "", "/"})
      EXPECT_EQ(get("/.wormhole" + name).status, 404) << name;
  }
  EXPECT_THAT(listed("/d/"), IsEmpty());
}

TEST_F(HttpServerTest, FollowsLinksThatStayInside) {
  fs::create_directories(root_ / "d/deep");
  write(root_ / "a", "content");
  fs::create_symlink("../../a", root_ / "d/deep/link");
  fs::create_symlink("d", root_ / "other");
  start();
  EXPECT_EQ(get("/d/deep/link").body, "content");
  EXPECT_EQ(get("/other/deep/link").body, "content");
  EXPECT_THAT(listed("/"), ElementsAre("d/", "other/", "a:7"));
  EXPECT_THAT(listed("/d/deep/"), ElementsAre("link:7"));
}

TEST_F(HttpServerTest, DoesNotServeWhatIsNoFile) {
  ASSERT_EQ(::mkfifo((root_ / "fifo").c_str(), 0600), 0);
  start();
  EXPECT_EQ(get("/fifo").status, 404);
  EXPECT_THAT(listed("/"), IsEmpty());
}

// --- directories ------------------------------------------------------------------------------------

TEST_F(HttpServerTest, RedirectsADirectoryToItsSlash) {
  fs::create_directories(root_ / "a b/c");
  start();
  EXPECT_EQ(get("/a%20b").status, 301);
  EXPECT_EQ(get("/a%20b").header("Location"), "/a%20b/");
  EXPECT_EQ(get("//a%20b//c").header("Location"), "/a%20b/c/") << "never //host";
}

TEST_F(HttpServerTest, ListsADirectory) {
  fs::create_directory(root_ / "d");
  write(root_ / "b.txt", "12");
  write(root_ / "a.txt", "1");
  write(root_ / ".hidden", "");
  start();
  EXPECT_THAT(listed("/"), ElementsAre("d/", ".hidden:0", "a.txt:1", "b.txt:2"));
  EXPECT_THAT(listed("/d/"), IsEmpty());
  EXPECT_EQ(get("/").header("Content-Type"), "text/html; charset=utf-8");
}

TEST_F(HttpServerTest, ListsAndServesEveryName) {
  std::vector<std::string> names;
  for (int byte = 1; byte < 256; ++byte) {
    if (byte != '/') names.push_back(std::string("x") + static_cast<char>(byte) + "y");
  }
  names.insert(names.end(), {" lead", "trail ", "a%20b", "&amp;", "...", "q?C=N;O=D", "\xE5\x90\x8D"});
  names.emplace_back(255, 'n');
  for (const std::string& name : names) write(root_ / name, name);
  start();
  const std::vector<std::string> seen = listed("/");
  for (const std::string& name : names) {
    EXPECT_THAT(seen, ::testing::Contains(name + ":" + std::to_string(name.size())));
    EXPECT_EQ(get("/" + encode_segment(name)).body, name);
  }
  EXPECT_EQ(seen.size(), names.size());
}

TEST_F(HttpServerTest, ListsTenThousandFiles) {
  for (int i = 0; i < 10'000; ++i) write(root_ / ("file" + std::to_string(i)), "");
  start();
  EXPECT_EQ(listed("/").size(), 10'000);
}

// --- running ----------------------------------------------------------------------------------------

TEST_F(HttpServerTest, LogsEachRequest) {
  write(root_ / "a b", "0123456789");
  start();
  get("/a%20b", "Range: bytes=0-1\r\nUser-Agent: some \"agent\"\r\nReferer: http://x/\r\n");
  ask("HEAD", "/nothing");
  server_.reset();
  ASSERT_EQ(log_.size(), 2);
  const std::string when = R"(\[[0-9]{2}/[A-Z][a-z]{2}/[0-9]{4}:[0-9:]{8} \+0000\])";
  EXPECT_THAT(
      log_[0],
      ::testing::MatchesRegex(
          "127\\.0\\.0\\.1 - - " + when +
          R"( "GET /a%20b HTTP/1\.1" 206 2 "http://x/" "some \\x22agent\\x22" [0-9]+\.[0-9]{6} "bytes=0-1" whole)"));
  EXPECT_THAT(log_[1],
              ::testing::MatchesRegex("127\\.0\\.0\\.1 - - " + when +
                                      R"( "HEAD /nothing HTTP/1\.1" 404 0 "-" "-" [0-9]+\.[0-9]{6} "-" whole)"));
}

TEST_F(HttpServerTest, LogsWhatWasBrokenOff) {
  write_zeros(root_ / "big", 50'000'000);
  start();
  {
    const FileDescriptor fd = connect();
    send_text(fd, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    char byte;
    EXPECT_EQ(::recv(fd.get(), &byte, 1, 0), 1);
  }
  server_.reset();
  ASSERT_EQ(log_.size(), 1);
  EXPECT_THAT(log_[0], ::testing::EndsWith(" broken"));
}

TEST_F(HttpServerTest, AThousandClientsThatDoNothingAreInNobodysWay) {
  rlimit limit = {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 8192);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < 4096) GTEST_SKIP() << "only " << limit.rlim_cur << " descriptors";
  write_zeros(root_ / "big", 50'000'000);
  write(root_ / "a", "x");
  start({.connections = 2000});
  std::vector<FileDescriptor> clients;
  for (int i = 0; i < 1000; ++i) {
    clients.push_back(connect());
    // Some say nothing, some begin a request, some take the first bytes of a large answer.
    if (i % 3 == 1) send_text(clients.back(), "GET /big HT");
    if (i % 3 == 2) send_text(clients.back(), "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  for (int i = 0; i < 20; ++i) EXPECT_EQ(get("/a").body, "x");
}

TEST_F(HttpServerTest, ServesManyClientsAtOnce) {
  const std::string content(300'000, 'x');
  write(root_ / "a", content);
  start();
  std::atomic<int> right = 0;
  std::vector<std::thread> clients;
  clients.reserve(64);
  for (int i = 0; i < 64; ++i) {
    clients.emplace_back([&] {
      for (int n = 0; n < 5; ++n) right += get("/a").body == content ? 1 : 0;
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(right, 64 * 5);
}

TEST_F(HttpServerTest, SurvivesClientsThatLeave) {
  write_zeros(root_ / "big", 20'000'000);
  write(root_ / "a", "x");
  start();
  for (int i = 0; i < 20; ++i) {
    const FileDescriptor fd = connect();
    send_text(fd, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    char byte;
    EXPECT_EQ(::recv(fd.get(), &byte, 1, 0), 1);
  }
  EXPECT_EQ(get("/a").body, "x");
}

TEST_F(HttpServerTest, EndsWithinASecondOrTwoWhateverTheClientsDo) {
  write_zeros(root_ / "big", 50'000'000);
  start();
  const FileDescriptor idle = connect();
  const FileDescriptor half = connect();
  send_text(half, "GET /big HT");
  const FileDescriptor stalled = connect();
  send_text(stalled, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
  char byte;
  EXPECT_EQ(::recv(stalled.get(), &byte, 1, 0), 1);
  const auto begin = std::chrono::steady_clock::now();
  server_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(3));
}

TEST_F(HttpServerTest, FinishesTheRequestsUnderWay) {
  constexpr uint64_t kSize = 30'000'000;
  write_zeros(root_ / "big", kSize);
  start();
  std::atomic<bool> begun = false;
  size_t received = 0;
  std::thread client([&] {
    const FileDescriptor fd = connect();
    send_text(fd, "GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    std::vector<char> piece(65536);
    for (ssize_t n; (n = ::recv(fd.get(), piece.data(), piece.size(), 0)) > 0;) {
      received += static_cast<size_t>(n);
      begun = true;
    }
  });
  while (!begun) std::this_thread::yield();
  server_.reset();
  client.join();
  EXPECT_GT(received, kSize) << "with its header";
}

TEST_F(HttpServerTest, SaysWhyItDoesNotStart) {
  start();
  const auto refusal = [](const HttpServerOptions& options) {
    const Result<std::unique_ptr<HttpServer>> server = HttpServer::start(options);
    EXPECT_FALSE(server.has_value());
    return server ? Error{} : server.error();
  };
  Error error = refusal({.directory = top_ / "missing"});
  EXPECT_EQ(error.code, ErrorCode::kNotFound);
  EXPECT_THAT(error.message, HasSubstr("missing"));
  error = refusal({.directory = top_ / "secret"});
  EXPECT_EQ(error.code, ErrorCode::kInvalid);
  EXPECT_THAT(error.message, HasSubstr("is not a directory"));
  error = refusal({.directory = root_, .port = server_->port()});
  EXPECT_EQ(error.code, ErrorCode::kBusy);
  EXPECT_THAT(error.message, HasSubstr("is in use"));
  error = refusal({.directory = root_, .address = "no such host"});
  EXPECT_EQ(error.code, ErrorCode::kInvalid);
}

TEST_F(HttpServerTest, ListensOnIpv6) {
  Result<std::unique_ptr<HttpServer>> server = HttpServer::start({.directory = root_, .address = "::1"});
  if (!server) GTEST_SKIP() << "no IPv6 here: " << server.error().message;
  EXPECT_EQ((*server)->url(), "http://[::1]:" + std::to_string((*server)->port()) + "/");
}

}  // namespace
}  // namespace wormhole
