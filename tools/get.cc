// wormhole get URL...: remote files into local ones, by many ranges at once.

#include <fmt/format.h>
#include <signal.h>
#include <algorithm>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "net/curl_fetcher.h"
#include "net/download.h"
#include "net/listing_names.h"
#include "tools/command.h"
#include "tools/progress_bar.h"

namespace wormhole {
namespace {

constexpr int kUsageError = 2;

// A download may run for hours and can afford to wait for a network that comes back: about a minute.
constexpr int kAttempts = 16;

struct GetOptions {
  std::vector<std::string> urls;
  std::string file;
  std::string directory;
  int connections = 16;
  std::string sha256;
  std::string ca_file;
  bool replace = false;
  bool no_progress = false;
  bool json = false;
};

// One remote file, and where it goes.
struct Item {
  Url url;
  std::string file;
};

// --- signals ----------------------------------------------------------------------------------------

std::atomic<int> pending_signal = 0;

// The first signal ends the download in good order, a second one at once.
void end_on_signals() {
  struct sigaction action = {};
  action.sa_handler = [](int number) { pending_signal = number; };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) sigaction(number, &action, nullptr);
}

// --- what is shown ----------------------------------------------------------------------------------

class Display final : public DownloadObserver {
 public:
  Display(std::string label, const Clock& clock, ProgressBar::Output output)
      : label_(std::move(label)), clock_(clock), output_(output) {}

  void begins(uint64_t size, uint64_t there) override {
    bar_ = std::make_unique<ProgressBar>(label_, size, clock_, output_);
    bar_->update(there);
  }
  void progress(uint64_t done) override {
    if (bar_) bar_->update(done);
  }
  void note(const std::string& text) override {
    bar_.reset();  // what follows has a line of its own
    fmt::print(stderr, "wormhole get: {}\n", text);
  }
  bool stop_requested() override { return pending_signal != 0; }

  void end(const Result<DownloadResult>& result) {
    if (bar_ && result) {
      bar_->update(result->size);
      bar_->finish();
    }
    bar_.reset();
  }

 private:
  const std::string label_;
  const Clock& clock_;
  const ProgressBar::Output output_;
  std::unique_ptr<ProgressBar> bar_;
};

void print_json(const Item& item, const Result<DownloadResult>& result, const GetOptions& options, Duration elapsed) {
  nlohmann::json line = {{"url", item.url.display()}, {"file", item.file}};
  if (result) {
    line["size"] = result->size;
    line["fetched"] = result->fetched;
    line["seconds"] = std::chrono::duration<double>(elapsed).count();
    line["etag"] = result->validator.etag;
    line["last_modified"] = result->validator.last_modified;
    if (!options.sha256.empty()) line["sha256"] = options.sha256;
  } else {
    line["error"] = {{"code", to_string(result.error().code)}, {"message", result.error().message}};
  }
  fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  std::fflush(stdout);
}

int complain(const Error& error) {
  fmt::print(stderr, "wormhole get: {}\n", error.message);
  return error.code == ErrorCode::kInvalid ? kUsageError : 1;
}

// --- the work ---------------------------------------------------------------------------------------

Result<Item> item_of(const std::string& text, const GetOptions& options) {
  Result<Url> url = Url::parse(text);
  if (!url) return fail(url.error());
  if (!options.file.empty()) return Item{std::move(*url), options.file};
  const std::string name = url->file_name();
  if (!may_be_entry(name)) {
    return fail(ErrorCode::kInvalid, "{} names no file: give one with -o, or mount the directory", url->display());
  }
  return Item{std::move(*url), (std::filesystem::path(options.directory) / name).string()};
}

Result<std::vector<Item>> items_of(const GetOptions& options) {
  if (!options.file.empty() && options.urls.size() > 1) {
    return fail(ErrorCode::kInvalid, "-o names one file, but there are {} URLs: use -d", options.urls.size());
  }
  if (!options.sha256.empty() && options.urls.size() > 1) {
    return fail(ErrorCode::kInvalid, "--sha256 is the checksum of one file, but there are {} URLs",
                options.urls.size());
  }
  std::vector<Item> items;
  for (const std::string& text : options.urls) {
    Result<Item> item = item_of(text, options);
    if (!item) return fail(item.error());
    items.push_back(std::move(*item));
  }
  return items;
}

Result<DownloadOptions> download_options(const GetOptions& options, const Item& item) {
  DownloadOptions download;
  download.file = item.file;
  download.replace = options.replace;
  download.connections = options.connections;
  if (!options.sha256.empty()) {
    download.sha256 = parse_sha256(options.sha256);
    if (!download.sha256) {
      return fail(ErrorCode::kInvalid, "--sha256 {}: expected 64 hexadecimal digits", options.sha256);
    }
  }
  return download;
}

int get(const GetOptions& options) {
  const Result<std::vector<Item>> items = items_of(options);
  if (!items) return complain(items.error());

  const SystemClock clock;
  Metrics metrics;
  BufferPool buffers(Download::memory_for(options.connections), metrics);
  CurlOptions curl;
  curl.connections = options.connections;
  // What is measured is of one server; for several it would be a mixture.
  const Url& first = items->front().url;
  if (std::all_of(items->begin(), items->end(), [&](const Item& item) { return item.url.same_origin(first); }))
    curl.origin = first.str();
  curl.keep_warm = false;
  curl.ca_file = options.ca_file;
  curl.retry.attempts = kAttempts;
  CurlFetcher fetcher(curl, buffers, metrics, clock);
  end_on_signals();

  int code = 0;
  for (const Item& item : *items) {
    Result<DownloadOptions> download = download_options(options, item);
    if (!download) return complain(download.error());
    Display display(std::filesystem::path(item.file).filename(), clock,
                    options.no_progress ? ProgressBar::Output::kNone : ProgressBar::Output::kAuto);
    const TimePoint begin = clock.now();
    const Result<DownloadResult> result =
        Download(fetcher, buffers, clock, std::move(*download), display).run(item.url);
    display.end(result);
    if (options.json) print_json(item, result, options, clock.now() - begin);
    if (!result) code = complain(result.error());
    if (pending_signal != 0) return 128 + pending_signal;
  }
  return code;
}

}  // namespace

CLI::App* add_get_command(CLI::App& program, Run& run) {
  auto options = std::make_shared<GetOptions>();
  CLI::App* command = program.add_subcommand("get", "Fetch files by many ranges at once; resumes");
  command->add_option("URL", options->urls, "What to fetch, http:// or https://")->required();
  auto* file = command->add_option("-o,--output", options->file, "Where to put it (one URL)")->type_name("FILE");
  command->add_option("-d,--directory", options->directory, "Where to put them, under the names in their URLs")
      ->type_name("DIR")
      ->excludes(file);
  command->add_option("-c,--connections", options->connections, "Ranges to fetch at the same time")
      ->check(CLI::Range(1, 128))
      ->capture_default_str();
  command->add_option("--sha256", options->sha256, "What the file must have; else it is thrown away")->type_name("HEX");
  command->add_option("--ca", options->ca_file, "Certificates to trust instead of the system's (PEM)")
      ->type_name("FILE");
  command->add_flag("-f,--force", options->replace, "Replace a file that exists");
  command->add_flag("--no-progress", options->no_progress, "Show nothing while it goes well");
  command->add_flag("--json", options->json, "A line of JSON on standard output for each URL, at its end");
  command->callback([options, &run] { run = [options] { return get(*options); }; });
  return command;
}

}  // namespace wormhole
