// wormhole host DIR: hands a directory out over HTTP until SIGINT or SIGTERM.

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <memory>
#include <string>

#include "net/http_server.h"
#include "tools/command.h"

namespace wormhole {
namespace {

struct HostOptions {
  std::string directory;
  std::string listen = "127.0.0.1:8080";
  bool quiet = false;
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

// One write, so that lines of several threads stay whole.
void log_to_stderr(std::string_view line) {
  const std::string text = fmt::format("{}\n", line);
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;  // nobody is left to read it
}

int host(const HostOptions& options) {
  // Blocked before the server's threads exist, so that they inherit it and the signals wait for sigwait().
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  sigprocmask(SIG_BLOCK, &signals, nullptr);

  HttpServerOptions server_options;
  server_options.directory = options.directory;
  if (!options.quiet) server_options.log = log_to_stderr;
  if (Status parsed = parse_listen(options.listen, server_options); !parsed) return report(parsed.error());
  const Result<std::unique_ptr<HttpServer>> server = HttpServer::start(std::move(server_options));
  if (!server) return report(server.error());

  fmt::print("serving {} at {}\n", options.directory, (*server)->url());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
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
  command->add_flag("-q,--quiet", options->quiet, "No line for each request on standard error");
  command->callback([options, &run] { run = [options] { return host(*options); }; });
  return command;
}

}  // namespace wormhole
