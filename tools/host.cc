// wormhole host DIR: hands a directory out over HTTP or HTTPS until SIGINT or SIGTERM, with a manifest that follows it.
// SIGHUP: token, certificate and log are opened again.

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>

#include "base/log.h"
#include "net/access_log.h"
#include "net/credentials.h"
#include "net/http_server.h"
#include "tools/cache_home.h"
#include "tools/command.h"
#include "tools/key_files.h"
#include "tools/live_manifest.h"

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
  std::string manifest = "auto";
  std::string manifest_directory, sign, password_file;
  int rescan_minutes = 60;
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

// --- the manifest ---------------------------------------------------------------------------------------------------

// For this user only: it tells the names of files that others may not list.
Result<std::string> default_manifest_directory(const std::string& tree) {
  std::error_code error;
  const std::string path = std::filesystem::canonical(tree, error).string();
  const std::string all = cache_home() + "/host";
  std::filesystem::create_directories(all, error);
  std::string own = all + "/" + distinct_name(std::filesystem::path(path).filename(), path);
  if (::mkdir(own.c_str(), 0700) != 0 && errno != EEXIST) return fail(error_from_errno(errno, "make " + own));
  return own;
}

// One that `wormhole index` has written is its owner's to renew.
bool has_manifest_of_its_own(const std::string& tree) {
  std::error_code ignored;
  return std::filesystem::exists(fmt::format("{}/{}/{}", tree, kManifestDirectory, kHeadName), ignored);
}

Result<std::unique_ptr<LiveManifest>> open_in_its_place(const HostOptions& options, std::optional<SecretKey> key) {
  Result<std::string> place = options.manifest_directory.empty() ? default_manifest_directory(options.directory)
                                                                 : Result<std::string>(options.manifest_directory);
  if (!place) return fail(place.error());
  return LiveManifest::open({.tree = options.directory,
                             .place = std::move(*place),
                             .key = std::move(key),
                             .rescan = std::chrono::minutes(options.rescan_minutes)});
}

// Null: none is kept. What nobody has asked for in so many words may fail: the files are served without.
Result<std::unique_ptr<LiveManifest>> open_manifest(const HostOptions& options, std::optional<SecretKey> key) {
  const bool asked_for = !options.manifest_directory.empty() || key;
  if (options.manifest == "off") {
    if (asked_for) return fail(ErrorCode::kInvalid, "--manifest=off goes with neither --manifest-dir nor --sign");
    return nullptr;
  }
  std::error_code ignored;
  if (!std::filesystem::is_directory(options.directory, ignored)) return nullptr;  // which the server tells of
  if (!asked_for && has_manifest_of_its_own(options.directory)) {
    log::info("the manifest that is in {}/{} is served as it is", options.directory, kManifestDirectory);
    return nullptr;
  }
  auto opened = open_in_its_place(options, std::move(key));
  if (opened || asked_for) return opened;
  log::warn("served without a manifest: {}", opened.error().message);
  return nullptr;
}

// --- the server -----------------------------------------------------------------------------------------------------

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
  if (options.quiet) log::configure(log::Level::kWarn, "");
  std::optional<SecretKey> signing_key;
  if (!options.sign.empty()) {  // while Ctrl-C still ends it: a password may be asked for
    Result<SecretKey> key = read_secret_key(options.sign, options.password_file);
    if (!key) return report(key.error());
    signing_key = std::move(*key);
  }
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
  Result<std::unique_ptr<LiveManifest>> manifest = open_manifest(options, std::move(signing_key));
  if (!manifest) return report(manifest.error());
  if (*manifest) server_options.hidden = (*manifest)->place();
  Result<std::unique_ptr<HttpServer>> server = HttpServer::start(server_options);
  if (!server) return report(server.error());

  print_start(options, **server);
  if (*manifest) (*manifest)->start();
  int signal = SIGHUP;
  for (;;) {
    sigwait(&signals, &signal);
    if (signal != SIGHUP) break;
    renew(options, **server, log.get());
  }
  // A second one ends the process as if it had no handler.
  sigdelset(&signals, SIGHUP);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  if (*manifest) (*manifest)->stop();
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
  command
      ->add_option("--manifest", options->manifest,
                   "auto: a manifest is made of DIR and follows it, unless DIR has one; off: none is made")
      ->type_name("auto|off")
      ->check(CLI::IsMember({"auto", "off"}).description(""))
      ->capture_default_str();
  command->add_option("--manifest-dir", options->manifest_directory, "Where the manifest lies; default: below ~/.cache")
      ->type_name("DIR");
  auto* sign = command->add_option("--sign", options->sign, "minisign's secret key, to sign the manifest with")
                   ->type_name("FILE");
  command->add_option("--password-file", options->password_file, "Its password; default: the terminal is asked")
      ->type_name("FILE")
      ->needs(sign);
  command->add_option("--rescan", options->rescan_minutes, "All of DIR is looked at so often, for what inotify misses")
      ->type_name("MINUTES")
      ->check(CLI::Range(0, 525'600))
      ->capture_default_str();
  command->add_option("--log", options->log_file, "A line for each request goes there, not to standard error")
      ->type_name("FILE");
  command->add_flag("-q,--quiet", options->quiet, "No line for each request on standard error, nor for each manifest");
  command->add_flag("--json", options->json, "The line at the start is a JSON object: url, port, directory");
  command->callback([options, &run] { run = [options] { return host(*options); }; });
  return command;
}

}  // namespace wormhole
