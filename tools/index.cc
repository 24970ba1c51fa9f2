// wormhole index: writes the manifest of a tree, for any web server to serve beside it; and checks a tree against its
// manifest.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "manifest/comparison.h"
#include "manifest/manifest_directory.h"
#include "manifest/signature.h"
#include "manifest/tree_scan.h"
#include "manifest/writer.h"
#include "net/curl_fetcher.h"
#include "net/remote.h"
#include "tools/command.h"
#include "tools/human.h"
#include "tools/interrupt.h"
#include "tools/key_files.h"
#include "tools/progress_bar.h"
#include "tools/remote_tree.h"
#include "tools/tree_walk.h"

namespace wormhole {
namespace {

// The work is done, but something of the tree is left out, or differs.
constexpr int kNotAll = 3;

// More is counted, not named.
constexpr size_t kMostNamed = 1000;

constexpr Duration kProbePatience = std::chrono::seconds(60);

struct IndexOptions {
  std::string source;
  std::string output;
  std::string sign, password_file;
  std::string key;
  std::string ca_file;
  std::vector<std::string> mirrors;
  int threads = 0;
  size_t keep = 1;
  bool check = false;
  bool rehash = false;
  bool one_file_system = false;
  bool json = false;
  bool quiet = false;

  bool is_remote() const { return source.starts_with("http://") || source.starts_with("https://"); }
  std::string manifest_directory() const {
    return output.empty() ? source + "/" + std::string(kManifestDirectory) : output;
  }
};

void say(const std::string& message) { fmt::print(stderr, "wormhole index: {}\n", message); }

int complain(const Error& error) {
  if (error.code == ErrorCode::kCancelled && interrupted_by() != 0) {
    say("interrupted; nothing was changed");
    return 128 + interrupted_by();
  }
  say(error.message);
  return error.code == ErrorCode::kInvalid ? 2 : 1;
}

void print(const nlohmann::json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

// --- what is shown --------------------------------------------------------------------------------------------------

// The bar. How much there is, is counted meanwhile by another thread: of what the disk must bring it brings nothing
// that is not read anyway.
class Display {
 public:
  Display(const IndexOptions& options, const char* doing)
      : doing_(doing),
        bar_(doing, std::nullopt, clock_, options.quiet ? ProgressBar::Output::kNone : ProgressBar::Output::kAuto) {
    bar_.update(0);
    if (options.quiet || options.is_remote()) return;
    counting_ = start_thread("wh-count", [this, top = options.source] {
      Walk walk;
      walk.sizes = Walk::Sizes::kExact;
      walk.file = [this, own = top + "/" + std::string(kManifestDirectory) + "/"](const WalkedFile& file) {
        if (file.path.starts_with(own)) return true;
        ++files_;
        bytes_ += file.size;
        return !stop_.load();
      };
      walk.failed = [](const std::string&, int) {};
      counted_ = walk.run(top);
    });
  }
  ~Display() { stop_counting(); }

  bool update(const ScanProgress& progress) {
    done_files_ = progress.files;
    if (counted_) {
      bar_.set_total(bytes_);
      bar_.relabel(fmt::format("{} {} / {} files", doing_, progress.files, files_.load()));
    } else {
      bar_.relabel(fmt::format("{} {} files", doing_, progress.files));
    }
    bar_.update(progress.bytes);
    return interrupted_by() == 0;
  }
  void finish() {
    stop_counting();
    bar_.relabel(fmt::format("{} {} files", doing_, done_files_));
    bar_.finish();
  }
  double seconds() const { return std::chrono::duration<double>(clock_.now() - begin_).count(); }

 private:
  void stop_counting() {
    stop_ = true;
    if (counting_.joinable()) counting_.join();
  }

  const SystemClock clock_;
  const TimePoint begin_ = clock_.now();
  const std::string doing_;
  ProgressBar bar_;
  uint64_t done_files_ = 0;
  std::atomic<bool> stop_{false}, counted_{false};
  std::atomic<uint64_t> files_{0}, bytes_{0};
  std::thread counting_;
};

// --- writing --------------------------------------------------------------------------------------------------------

// From a walk into the pages.
class Publisher final : public ScanVisitor {
 public:
  Publisher(UnnamedFile& pages, Display& display)
      : writer_([&pages](std::string_view bytes) { return pages.append(bytes); }), display_(display) {}

  Status begin_directory(const ManifestEntry& directory, const std::string&) override {
    return writer_.begin(directory);
  }
  Status entry(ManifestEntry entry, std::span<const std::byte> tree, const std::string&) override {
    return writer_.add(std::move(entry), tree);
  }
  Status end_directory() override { return writer_.end(); }
  Status left_out(const std::string& path, const std::string& why) override {
    ++left_out_;
    if (named_.size() < kMostNamed) named_.push_back({{"path", path}, {"why", why}});
    return {};
  }
  bool goes_on(const ScanProgress& progress) override { return display_.update(progress); }

  Result<ManifestHead> finish() { return writer_.finish(); }
  uint64_t count_left_out() const { return left_out_; }
  const nlohmann::json& named() const { return named_; }

 private:
  ManifestWriter writer_;
  Display& display_;
  uint64_t left_out_ = 0;
  nlohmann::json named_ = nlohmann::json::array();
};

Result<std::vector<std::string>> mirrors_of(const IndexOptions& options) {
  std::vector<std::string> out;
  for (const std::string& text : options.mirrors) {
    const auto url = Url::parse(text);
    if (!url) return fail(url.error());
    if (!url->user().empty() || !url->password().empty())
      return fail(ErrorCode::kInvalid, "--mirror {}: everybody who reads the manifest would read the password",
                  url->display());
    out.push_back(url->as_directory().str());
  }
  return out;
}

int threads_of(const IndexOptions& options) {
  return options.threads > 0 ? options.threads : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

class Indexing {
 public:
  explicit Indexing(const IndexOptions& options) : options_(options) {}

  int run() {
    const auto done = index();
    return done ? *done : complain(done.error());
  }

 private:
  Result<int> index() {
    auto mirrors = mirrors_of(options_);
    if (!mirrors) return fail(mirrors.error());
    // First of all: nobody wants to be asked after an hour.
    std::optional<SecretKey> key;
    if (!options_.sign.empty()) {
      auto parsed = read_secret_key(options_.sign, options_.password_file);
      if (!parsed) return fail(parsed.error());
      key = std::move(*parsed);
    }
    FileDescriptor root;
    if (!options_.is_remote()) {
      root = FileDescriptor(::open(options_.source.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      if (!root) return fail(error_from_errno(errno, "open " + options_.source));
    }
    auto directory = ManifestDirectory::open_to_write(options_.manifest_directory());
    if (!directory) return fail(directory.error());
    const auto before = directory->current();
    if (!before && before.error().code == ErrorCode::kFormat) return fail(before.error());
    if (!before && before.error().code != ErrorCode::kNotFound)
      say(fmt::format("the manifest before is of no use: {}", before.error().message));
    if (before && !before->signature.empty() && !key)
      say("the manifest before was signed, and this one is not: mounts that demand a signature will refuse it");

    const int64_t created = nanoseconds_now();
    auto pages = directory->new_file();
    if (!pages) return fail(pages.error());
    Display display(options_, options_.is_remote() ? "listing" : "indexing");
    Publisher publisher(*pages, display);
    Result<ScanProgress> walked;
    if (options_.is_remote()) {
      walked = walk_remote(publisher, *mirrors);
    } else {
      walked = walk_local(root.get(), *directory, before, publisher);
    }
    if (!walked) return fail(walked.error());
    auto head = publisher.finish();
    if (!head) return fail(head.error());
    head->created = created;
    head->sequence = directory->next_sequence(created);
    head->mirrors = std::move(*mirrors);
    const auto sign = [&](std::string_view bytes) { return sign_head(*key, *head, bytes); };
    const auto published =
        directory->publish(std::move(*pages), *head, key ? sign : std::function<std::string(std::string_view)>(),
                           {.count = options_.keep});
    if (!published) return fail(published.error());
    display.finish();
    report(*head, published->hash, *walked, key, publisher, display.seconds());
    return publisher.count_left_out() == 0 ? 0 : kNotAll;
  }

  Result<ScanProgress> walk_local(int root, const ManifestDirectory& directory, const Result<StoredManifest>& before,
                                  ScanVisitor& visitor) {
    ScanOptions scan;
    scan.threads = threads_of(options_);
    scan.one_file_system = options_.one_file_system;
    scan.excluded = directory.identity();
    KnownTree known;
    if (before && !options_.rehash) {
      known = {.head = before->head, .pages = before->pages};
      scan.known = &known;
    }
    return scan_tree(root, scan, visitor);
  }

  Result<ScanProgress> walk_remote(ScanVisitor& visitor, std::vector<std::string>& mirrors) {
    const auto url = Url::parse(options_.source);
    if (!url) return fail(url.error());
    const SystemClock clock;
    Metrics metrics;
    BufferPool buffers(0, metrics);
    CurlOptions curl;
    curl.origin = url->str();
    curl.keep_warm = false;
    curl.ca_file = options_.ca_file;
    CurlFetcher fetcher(curl, buffers, metrics, clock);
    const auto place = probe(fetcher, *url, ListingKind::kAuto, kProbePatience);
    if (!place) return fail(place.error());
    if (place->file) return fail(ErrorCode::kNotDirectory, "{} is a file, not a directory", url->display());
    // Who has the manifest from elsewhere finds the files there.
    mirrors.insert(mirrors.begin(), place->url.without_credentials().str());
    if (Status walked = walk_remote_tree(fetcher, place->url, visitor); !walked) return fail(walked.error());
    return ScanProgress{};
  }

  void report(const ManifestHead& head, const Hash256& hash, const ScanProgress& walked,
              const std::optional<SecretKey>& key, const Publisher& publisher, double seconds) {
    for (const auto& left : publisher.named())
      say(fmt::format("left out: {}: {}", left["path"].get<std::string>(), left["why"].get<std::string>()));
    if (publisher.count_left_out() > publisher.named().size())
      say(fmt::format("left out: {} more", publisher.count_left_out() - publisher.named().size()));
    if (options_.json) {
      nlohmann::json out = {{"manifest", hash.hex()},
                            {"sequence", head.sequence},
                            {"directory", options_.manifest_directory()},
                            {"pages", pages_name(head.pages)},
                            {"pages_bytes", head.pages_bytes},
                            {"files", head.files},
                            {"directories", head.directories},
                            {"symlinks", head.symlinks},
                            {"bytes", head.bytes},
                            {"hashed_files", walked.hashed_files},
                            {"hashed_bytes", walked.hashed_bytes},
                            {"left_out", publisher.count_left_out()},
                            {"left_out_named", publisher.named()},
                            {"seconds", seconds}};
      if (key) out["signed_by"] = to_hex(key->id());
      print(out);
    } else if (!options_.quiet) {
      fmt::print("{} file{}, {}, {} director{}, {} symlink{}", head.files, head.files == 1 ? "" : "s",
                 human_bytes(head.bytes), head.directories, head.directories == 1 ? "y" : "ies", head.symlinks,
                 head.symlinks == 1 ? "" : "s");
      if (!options_.is_remote())
        fmt::print("; {} were read in {} file{}", human_bytes(walked.hashed_bytes), walked.hashed_files,
                   walked.hashed_files == 1 ? "" : "s");
      fmt::print("\nmanifest {} (sequence {}{}) in {}\n", hash.hex(), head.sequence,
                 key ? ", signed by " + to_hex(key->id()) : "", options_.manifest_directory());
    }
  }

  const IndexOptions& options_;
};

// --- checking -------------------------------------------------------------------------------------------------------

class Checking {
 public:
  explicit Checking(const IndexOptions& options) : options_(options) {}

  int run() {
    const auto done = check();
    return done ? *done : complain(done.error());
  }

 private:
  Result<int> check() {
    const auto directory = ManifestDirectory::open(options_.manifest_directory());
    if (!directory) return fail(directory.error());
    const auto manifest = directory->current();
    if (!manifest) return fail(manifest.error());
    if (!options_.key.empty()) {
      const auto key = read_public_key(options_.key);
      if (!key) return fail(key.error());
      if (manifest->signature.empty()) return fail(ErrorCode::kForbidden, "the manifest is not signed");
      const auto comment = verify_signature(*key, manifest->head_bytes, manifest->signature);
      if (!comment) return fail(comment.error().code, "the manifest: {}", comment.error().message);
      signed_by_ = to_hex(key->id());
    }
    const FileDescriptor root(::open(options_.source.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!root) return fail(error_from_errno(errno, "open " + options_.source));
    const auto whole = check_pages(manifest->head, manifest->pages, [](uint64_t) { return interrupted_by() == 0; });
    if (!whole) return fail(whole.error());

    Display display(options_, "checking");
    const auto found = [this](const Difference& difference) { note(difference); };
    Comparison comparison(manifest->head, manifest->pages, found,
                          [&](const ScanProgress& progress) { return display.update(progress); });
    ScanOptions scan;
    scan.threads = threads_of(options_);
    scan.one_file_system = options_.one_file_system;
    scan.excluded = directory->identity();
    const auto walked = scan_tree(root.get(), scan, comparison);
    if (!walked) return fail(walked.error());
    display.finish();
    report(manifest->head, *walked);
    return differences_ == 0 ? 0 : kNotAll;
  }

  void note(const Difference& difference) {
    ++differences_;
    const std::string path = difference.path.empty() ? "." : difference.path;
    if (!options_.json) {
      lines_.push_back(fmt::format("{}: {}{}{}\n", to_string(difference.kind), path,
                                   difference.detail.empty() ? "" : ": ", difference.detail));
      // Between two redraws of the bar there is no line to write to; a long list need not wait for the end.
      if (lines_.size() >= kMostNamed) flush_lines();
    } else if (named_.size() < kMostNamed) {
      named_.push_back({{"kind", to_string(difference.kind)}, {"path", path}, {"detail", difference.detail}});
    }
  }
  void flush_lines() {
    for (const std::string& line : lines_) std::fputs(line.c_str(), stdout);
    std::fflush(stdout);
    lines_.clear();
  }

  void report(const ManifestHead& head, const ScanProgress& walked) {
    if (options_.json) {
      nlohmann::json out = {{"sequence", head.sequence},
                            {"files", walked.files},
                            {"bytes", walked.bytes},
                            {"differences", differences_},
                            {"differences_named", named_}};
      if (!signed_by_.empty()) out["signed_by"] = signed_by_;
      print(out);
      return;
    }
    flush_lines();
    if (options_.quiet) return;
    fmt::print("{} file{}, {} were read: {}\n", walked.files, walked.files == 1 ? "" : "s", human_bytes(walked.bytes),
               differences_ == 0 ? "all is as the manifest says"
                                 : fmt::format("{} difference{}", differences_, differences_ == 1 ? "" : "s"));
  }

  const IndexOptions& options_;
  std::string signed_by_;
  uint64_t differences_ = 0;
  std::vector<std::string> lines_;
  nlohmann::json named_ = nlohmann::json::array();
};

int index(const IndexOptions& options) {
  if (options.is_remote() && (options.output.empty() || options.check)) {
    say(options.check ? "--check is for a directory on this machine"
                      : "of a URL, -o must say where the manifest is to be written");
    return 2;
  }
  if (!options.key.empty() && !options.check) {
    say("--key is for --check; a manifest is signed with --sign");
    return 2;
  }
  catch_interrupts();
  return options.check ? Checking(options).run() : Indexing(options).run();
}

}  // namespace

CLI::App* add_index_command(CLI::App& program, Run& run) {
  auto options = std::make_shared<IndexOptions>();
  CLI::App* command = program.add_subcommand("index", "Write the manifest of a directory, or check one");
  command->add_option("DIR|URL", options->source, "The tree: a directory, or where a server lists one")->required();
  command->add_option("-o,--output", options->output, "Where the manifest lies; default: DIR/.wormhole")
      ->type_name("DIR");
  auto* check = command->add_flag("--check", options->check, "Compare DIR with its manifest, and name what differs");
  command->add_option("--key", options->key, "With --check: minisign's public key, or its file, that must have signed")
      ->type_name("KEY")
      ->needs(check);
  auto* sign = command->add_option("--sign", options->sign, "minisign's secret key, to sign with")
                   ->type_name("FILE")
                   ->excludes(check);
  command->add_option("--password-file", options->password_file, "Its password; default: the terminal is asked")
      ->type_name("FILE")
      ->needs(sign);
  command->add_option("--mirror", options->mirrors, "URL of a directory that holds the same tree; repeatable")
      ->type_name("URL")
      ->expected(1)
      ->take_all()
      ->excludes(check);
  command->add_option("-j,--jobs", options->threads, "Threads that hash; default: one for each processor")
      ->check(CLI::Range(1, 256));
  command->add_option("--keep", options->keep, "Older manifests to keep for those who still read them")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str()
      ->excludes(check);
  command->add_flag("--rehash", options->rehash, "Read files whose size and time are as before, too")->excludes(check);
  command->add_flag("-x,--one-file-system", options->one_file_system, "Leave out what is mounted below DIR");
  command->add_option("--ca", options->ca_file, "Certificates to trust instead of the system's (PEM)")
      ->type_name("FILE");
  command->add_flag("--json", options->json, "Machine-readable");
  command->add_flag("-q,--quiet", options->quiet, "Show nothing while it goes well");
  command->callback([options, &run] { run = [options] { return index(*options); }; });
  return command;
}

}  // namespace wormhole
