// wormhole host DIR: hands a directory out over HTTP or HTTPS until SIGINT or SIGTERM. SIGHUP: token, certificate and
// log are opened again.

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/log.h"
#include "net/access_log.h"
#include "net/credentials.h"
#include "net/http_server.h"
#include "tools/command.h"

namespace wormhole {
namespace {

// More connections than this and the descriptors that they need are no use to a server of files, and each costs 32 KiB.
constexpr rlim_t kMostConnections = 16384;

// Log, listening socket, the threads' epolls, directories that are being listed.
constexpr rlim_t kOtherDescriptors = 128;

struct HostOptions {
  std::string directory;
  std::string listen = "127.0.0.1:8080";
  std::string token_file, certificate_file, key_file, log_file;
  bool quiet = false;
  bool json = false;
};

int report(const Error& error) {
  fmt::print(stderr, "wormhole host: {}\n", error.message);
  return error.code == ErrorCode::kInvalid ? 2 : 1;
}

// "127.0.0.1:8080", "[::1]:8080", "localhost:0"
Status parse_listen(std::string_view text, HttpServerOptions& server) {
  const size_t colon = text.rfind(':');
  const std::string_view port = colon == text.npos ? "" : text.substr(colon + 1);
  std::string_view address = text.substr(0, colon);
  const bool v6 = address.starts_with('[') && address.ends_with(']');
  if (v6) address = address.substr(1, address.size() - 2);
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), server.port);
  const bool is_port = !port.empty() && error == std::errc() && end == port.data() + port.size();
  if (!is_port || address.empty() || (!v6 && address.find(':') != address.npos)) {
    return fail(ErrorCode::kInvalid, "--listen {}: expected ADDRESS:PORT, such as 127.0.0.1:8080 or [::1]:0", text);
  }
  server.address = address;
  return {};
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) return fail(error_from_errno(errno, path));
  return text.str();
}

Result<HttpServerSecrets> read_secrets(const HostOptions& options) {
  HttpServerSecrets secrets;
  Credentials credentials({.token_file = options.token_file});
  if (Status loaded = credentials.load(); !loaded) return fail(loaded.error());
  secrets.token = credentials.token();
  if (options.certificate_file.empty()) return secrets;
  Result<std::string> certificate = read_file(options.certificate_file), key = read_file(options.key_file);
  if (!certificate) return fail(certificate.error());
  if (!key) return fail(key.error());
  secrets.certificate = std::move(*certificate);
  secrets.key = std::move(*key);
  return secrets;
}

// As many as the kernel lets us have descriptors for: a connection, and a file for it.
unsigned raise_connections() {
  rlimit limit = {};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = std::min(limit.rlim_max, 2 * kMostConnections + kOtherDescriptors);
  ::setrlimit(RLIMIT_NOFILE, &limit);
  ::getrlimit(RLIMIT_NOFILE, &limit);
  const rlim_t left = limit.rlim_cur > kOtherDescriptors ? limit.rlim_cur - kOtherDescriptors : 0;
  return static_cast<unsigned>(std::min(left / 2, kMostConnections));
}

void print_start(const HostOptions& options, const HttpServer& server) {
  if (options.json) {
    std::error_code ignored;
    const nlohmann::json line = {{"url", server.url()},
                                 {"port", server.port()},
                                 {"directory", std::filesystem::absolute(options.directory, ignored).string()}};
    fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  } else {
    fmt::print("serving {} at {}\n", options.directory, server.url());
  }
  std::fflush(stdout);
}

// What cannot be had now stays as it was.
void renew(const HostOptions& options, HttpServer& server, AccessLog* log) {
  if (log != nullptr) {
    if (Status reopened = log->reopen(); !reopened) log::warn("the old log stays in use: {}", reopened.error().message);
  }
  const Result<HttpServerSecrets> secrets = read_secrets(options);
  const Status replaced = secrets ? server.replace_secrets(*secrets) : Status(fail(secrets.error()));
  if (!replaced) log::warn("the old token and certificate stay in use: {}", replaced.error().message);
}

int host(const HostOptions& options) {
  // Blocked before the server's threads exist, so that they inherit it and the signals wait for sigwait().
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  sigprocmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);  // whoever reads standard error may go

  HttpServerOptions server_options;
  server_options.directory = options.directory;
  server_options.connections = raise_connections();
  if (Status parsed = parse_listen(options.listen, server_options); !parsed) return report(parsed.error());
  Result<HttpServerSecrets> secrets = read_secrets(options);
  if (!secrets) return report(secrets.error());
  server_options.secrets = std::move(*secrets);
  std::unique_ptr<AccessLog> log;  // outlives the server, which writes into it
  if (!options.quiet || !options.log_file.empty()) {
    Result<std::unique_ptr<AccessLog>> opened = AccessLog::open(options.log_file);
    if (!opened) return report(opened.error());
    log = std::move(*opened);
    server_options.log = [log = log.get()](std::string_view line) { log->add(line); };
  }
  Result<std::unique_ptr<HttpServer>> server = HttpServer::start(server_options);
  if (!server) return report(server.error());

  print_start(options, **server);
  int signal = SIGHUP;
  for (;;) {
    sigwait(&signals, &signal);
    if (signal != SIGHUP) break;
    renew(options, **server, log.get());
  }
  // A second one ends the process as if it had no handler.
  sigdelset(&signals, SIGHUP);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  server->reset();
  return 0;
}

}  // namespace

CLI::App* add_host_command(CLI::App& program, Run& run) {
  auto options = std::make_shared<HostOptions>();
  CLI::App* command = program.add_subcommand("host", "Serve a directory over HTTP, read-only");
  command->add_option("DIR", options->directory, "The directory; links that lead out of it are not followed")
      ->required();
  command->add_option("--listen", options->listen, "Where to listen; port 0 chooses a free one")
      ->type_name("ADDRESS:PORT")
      ->capture_default_str();
  command->add_option("--token-file", options->token_file, "Who asks must send the token that is in it")
      ->type_name("FILE");
  CLI::Option* certificate =
      command->add_option("--tls-cert", options->certificate_file, "HTTPS, with this certificate and its chain (PEM)")
          ->type_name("FILE");
  certificate->needs(
      command->add_option("--tls-key", options->key_file, "Its key (PEM)")->type_name("FILE")->needs(certificate));
  command->add_option("--log", options->log_file, "A line for each request goes there, not to standard error")
      ->type_name("FILE");
  command->add_flag("-q,--quiet", options->quiet, "No line for each request on standard error");
  command->add_flag("--json", options->json, "The line at the start is a JSON object: url, port, directory");
  command->callback([options, &run] { run = [options] { return host(*options); }; });
  return command;
}

}  // namespace wormhole
