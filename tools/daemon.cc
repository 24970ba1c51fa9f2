#include "tools/daemon.h"

#include <malloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <future>
#include <thread>

#include "base/log.h"
#include "manifest/signature.h"
#include "tools/key_files.h"
#include "tools/mount_table.h"

namespace wormhole {
namespace {

// A daemon that has just been unmounted still writes its last commit; a new mount of the same cache waits that long.
constexpr int kLockPatienceSeconds = 5;

// Workers of libfuse decode requests; beyond a few they only add context switches. And one more that may wait for the
// disk: one reader then has the disk's latency alone, and where there are more the engine's depth counts (with two that
// may wait, 16 readers lose a tenth on two cores).
constexpr unsigned kMaxFuseThreads = 8;
constexpr unsigned kDiskWaiters = 1;

constexpr const char* kBeginsAnew = "the cache's index was damaged: what was cached is fetched again";

void raise_descriptor_limit() {
  // Each object in use holds a descriptor (cache/block_cache.cc).
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 65536);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// A listing of 100 000 entries passes through memory as some blocks of 10 to 20 MiB. From here on a block has pages of
// its own, which go back when it is freed; by itself glibc begins to keep such blocks once it has seen some.
constexpr int kBlockOfItsOwn = 1 << 20;

// A daemon has no terminal that could hang up; in the foreground that is an end like Ctrl-C.
int block_signals(bool foreground) {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int s : {SIGTERM, SIGINT}) ::sigaddset(&set, s);
  if (foreground) {
    ::sigaddset(&set, SIGHUP);
  } else {
    ::signal(SIGHUP, SIG_IGN);
  }
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return ::signalfd(-1, &set, SFD_CLOEXEC);
}

}  // namespace

Result<std::string> Daemon::start() {
  started_ = clock_.now();
  raise_descriptor_limit();
  ::mallopt(M_MMAP_THRESHOLD, kBlockOfItsOwn);
  // Before any thread exists: all of them inherit the mask.
  signal_fd_ = block_signals(options_.foreground);
  ended_fd_ = ::eventfd(0, EFD_CLOEXEC);

  // What the daemon writes is its user's alone.
  ::umask(077);

  const auto given = resolve_url(options_);
  if (!given) return fail(given.error());
  options_.curl.credentials.user = given->user();
  options_.curl.credentials.password = given->password();
  const Url url = given->without_credentials();
  // A query may hold a token, and everybody can read the mount table.
  const std::string shown = options_.url.starts_with("s3://") ? options_.url : url.display();
  source_ = shown.substr(0, shown.find('?'));
  if (auto s = open_cache(url); !s) return fail(s.error());

  buffers_ = std::make_unique<BufferPool>(options_.memory, metrics_);
  options_.curl.connect_timeout = std::min(options_.curl.connect_timeout, options_.timeout);
  // Files that are of no use are an error of the mount; later, when they are read again, they leave the old ones.
  if (auto s = Credentials(options_.curl.credentials).load(); !s) return fail(s.error());
  recall_servers(url);
  fetcher_ = std::make_unique<CurlFetcher>(options_.curl, *buffers_, metrics_, clock_);

  Ino root_ino = 0;
  std::string warning;
  auto root = find_root(url, &root_ino, &warning);
  if (!root) return fail(root.error());

  BlockReaderOptions reader;
  reader.patience = options_.timeout;
  reader.offline = options_.offline == OfflineMode::kOn;
  reader.speculate = options_.speculate;
  BlockCacheOptions cache{cache_directory_->objects_path(), options_.verify,
                          cache_directory_->was_left_open() || index_found_ != IndexFound::kSound};
  space_ = std::make_unique<Space>(
      SpaceOptions{cache_directory_->objects_path(), options_.cache_size, options_.min_free}, metrics_);
  const unsigned count = options_.engines != 0 ? options_.engines : engines_for(std::thread::hardware_concurrency());
  engines_ =
      std::make_unique<Engines>(count, reader, cache, options_.scrubber,
                                EngineBase{*space_, *index_, *fetcher_, *buffers_, metrics_, clock_}, [this](Ino ino) {
                                  if (NodeRef file = filesystem_->opened_as(ino)) catalog_->distrust(std::move(file));
                                });
  if (auto s = make_listings(*root); !s) return fail(s.error());
  catalog_ = std::make_unique<Catalog>(CatalogOptions{options_.ttl, options_.offline, options_.timeout},
                                       std::move(*root), root_ino, *index_, *fetcher_, *listings_, metrics_, clock_,
                                       [this](const std::vector<Ino>& inos) { engines_->drop(inos); });
  const bool looks_ahead = options_.speculate && options_.offline != OfflineMode::kOn;
  lookahead_ = std::make_unique<Lookahead>(LookaheadOptions{looks_ahead, options_.memory, options_.ttl}, *catalog_,
                                           *engines_, *index_, *fetcher_);
  options_.filesystem.disk_waiters = kDiskWaiters;
  filesystem_ = std::make_unique<Filesystem>(options_.filesystem, static_cast<double>(options_.ttl), *catalog_,
                                             *engines_, *lookahead_, metrics_, clock_);

  if (manifest_ != nullptr) manifest_->recall();
  refuse_passthrough();

  if (auto s = check_root_listing(); !s) return fail(s.error());
  if (warning.empty() && !catalog_->reachable()) warning = "the server cannot be reached: what is cached can be read";
  if (auto s = mount(); !s) return fail(s.error());
  if (index_found_ == IndexFound::kDamaged) warning += (warning.empty() ? "" : "; ") + std::string(kBeginsAnew);
  return warning;
}

Status Daemon::open_cache(const Url& url) {
  if (options_.cache.empty()) options_.cache = default_cache_directory(url);
  auto directory = CacheDirectory::open(options_.cache, kLockPatienceSeconds);
  if (!directory) return fail(directory.error());
  cache_directory_ = std::make_unique<CacheDirectory>(std::move(*directory));
  if (options_.log_file.empty() && !options_.foreground) options_.log_file = options_.cache + "/daemon.log";
  if (!log::configure(options_.log_level, options_.log_file)) {
    return fail(ErrorCode::kForbidden, "the log cannot be written: {}", options_.log_file);
  }
  log::info("wormhole {} starts: url={} mountpoint={} cache={}", WORMHOLE_VERSION, source_, options_.mountpoint,
            options_.cache);
  const auto found = delete_if_damaged(cache_directory_->index_path(), cache_directory_->may_be_damaged());
  if (!found) return fail(found.error());
  index_found_ = *found;
  auto index = Index::open(cache_directory_->index_path(), metrics_);
  if (!index) return fail(index.error());
  index_ = std::move(*index);
  if (!index_->was_clean()) log::warn("the cache was not closed cleanly: each block is checked when it is first read");
  return {};
}

// What earlier runs have learnt of the origin and its mirrors.
void Daemon::recall_servers(const Url& url) {
  options_.curl.origin = url.str();
  std::vector<std::string> urls = options_.curl.mirrors;
  urls.push_back(url.str());
  for (const std::string& server : urls) {
    if (const auto profile = remembered(server)) options_.curl.profiles[server] = *profile;
  }
}

std::optional<HostProfile> Daemon::remembered(const std::string& server) const {
  const auto text = index_->host(server);
  return text ? decode_host_profile(*text) : std::nullopt;
}

// Those that the manifest names.
void Daemon::use_mirrors(const std::vector<std::string>& named, const Url& origin) {
  std::vector<KnownMirror> mirrors;
  for (Url& url : usable_mirrors(named, origin)) {
    const HostProfile profile = remembered(url.str()).value_or(HostProfile{});
    mirrors.push_back({std::move(url), profile});
  }
  fetcher_->use_content_mirrors(std::move(mirrors));
}

void Daemon::remember_servers() {
  if (!fetcher_ || !index_) return;
  for (const auto& [url, profile] : fetcher_->profiles()) index_->put_host(url, encode(profile));
}

// What the server says the URL is; what the cache remembers when the server does not answer.
Result<RemoteRoot> Daemon::find_root(const Url& url, Ino* ino, std::string* warning) {
  const auto known = index_->root(url.str());
  *ino = known ? known->ino : index_->allocate_ino();
  Result<RemoteRoot> root = fail(ErrorCode::kUnreachable, "{}: nothing is cached of it, and offline=on", source_);
  if (options_.offline != OfflineMode::kOn) root = probe(*fetcher_, url, options_.listing.kind, options_.timeout);
  if (root) {
    const RootRecord record{*ino, root->file.has_value(), root->url.str()};
    if (known != record) index_->put_root(url.str(), record);
    return root;
  }
  const ErrorCode code = root.error().code;
  if (!known || !server_did_not_speak(code) || options_.offline == OfflineMode::kOff) return root;
  if (options_.offline == OfflineMode::kAuto) *warning = "the server cannot be reached: what is cached can be read";
  auto remembered = Url::parse(known->url);
  if (!remembered) return fail(remembered.error());
  return RemoteRoot{*remembered, known->single_file ? std::optional(RemoteFile{}) : std::nullopt};
}

void Daemon::refuse_passthrough() {
  Passthrough& passthrough = filesystem_->passthrough();
  if (!options_.passthrough) passthrough.refuse("as the options say");
  if (options_.verify == VerifyMode::kAlways) passthrough.refuse("verify=always checks every read");
  if (::geteuid() != 0) passthrough.refuse("only root's mounts can pass files through");
}

// A mount whose root cannot be listed is of no use to anybody: better an error now than at the first ls.
// A tree may have a manifest; with listing=auto that is looked for before anything else.
Status Daemon::make_listings(const RemoteRoot& root) {
  const ListingKind kind = options_.listing.kind;
  listings_ = make_listing_source(options_.listing, *fetcher_);
  const bool required =
      kind == ListingKind::kManifest || !options_.manifest_key_file.empty() || options_.manifest.has_value();
  if (root.file || (kind != ListingKind::kAuto && !required)) return {};
  ManifestOptions manifest;
  manifest.required = required;
  manifest.pinned = options_.manifest;
  manifest.ttl = options_.ttl;
  manifest.believed = [this, at = root.url](const KnownManifest& known) {
    filesystem_->set_root(known.sequence > 0 ? std::optional(known.mode) : std::nullopt, known.mtime);
    if (options_.manifest_mirrors) use_mirrors(known.mirrors, at);
  };
  if (!options_.manifest_key_file.empty()) {
    auto key = read_public_key(options_.manifest_key_file);
    if (!key) return fail(key.error().code, "manifest-key: {}", key.error().message);
    manifest.check_signature = [key = *key](std::string_view head, std::string_view signature) -> Status {
      auto comment = verify_signature(key, head, signature);
      if (!comment) return fail(comment.error());
      return {};
    };
  }
  auto source = std::make_unique<ManifestSource>(std::move(manifest), root.url.str(), std::move(listings_), *fetcher_,
                                                 *buffers_, metrics_, engines_->all(), *index_, clock_);
  manifest_ = source.get();
  listings_ = std::move(source);
  return {};
}

Status Daemon::check_root_listing() {
  std::promise<Status> answered;
  auto answer = answered.get_future();
  catalog_->open_directory(catalog_->root(), [&answered](const Result<Catalog::OpenedDirectory>& listing) {
    if (listing) {
      answered.set_value({});
    } else {
      answered.set_value(fail(listing.error()));
    }
  });
  return answer.get();
}

Status Daemon::mount() {
  SessionOptions session;
  session.mountpoint = options_.mountpoint;
  session.source = source_;
  session.options = options_.kernel;
  session.threads = std::clamp(std::thread::hardware_concurrency(), 2u, kMaxFuseThreads) + kDiskWaiters;
  session.transport = options_.transport;
  auto mounted = Session::mount(std::move(session), *filesystem_);
  if (!mounted) return fail(mounted.error());
  session_ = std::move(*mounted);
  Status started = session_->start([this] {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(ended_fd_, &one, sizeof(one));
  });
  if (!started) return started;
  find_device();
  cache_requests_ = std::make_unique<CacheRequests>(*index_, *engines_, *filesystem_, *space_, metrics_);
  auto control = ControlServer::start([this](const nlohmann::json& request, const ControlServer::Say& say) {
    return request.value("do", nlohmann::json()) == "status" ? status() : cache_requests_->answer(request, say);
  });
  if (control) {
    control_ = std::move(*control);
  } else {
    log::warn("no command will find this mount: {}", control.error().message);
  }
  log::info("mounted: url={} mountpoint={} io={} engines={} transport={}", source_, options_.mountpoint,
            engines_->io_backend(), engines_->count(), session_->transport().uring ? "uring" : "dev");
  return {};
}

// From the mount table and not by a stat: that would ask this daemon.
void Daemon::find_device() {
  if (const auto mount = find_wormhole_above(options_.mountpoint); mount && mount->mountpoint == options_.mountpoint)
    device_ = fmt::format("{}:{}", major(mount->device), minor(mount->device));
}

void Daemon::run() {
  pollfd fds[2] = {{signal_fd_, POLLIN, 0}, {ended_fd_, POLLIN, 0}};
  while (::poll(fds, 2, -1) < 0 && errno == EINTR) {
  }
  if (fds[0].revents != 0) {
    signalfd_siginfo info{};
    [[maybe_unused]] const ssize_t n = ::read(signal_fd_, &info, sizeof(info));
    log::info("ends by signal: signal={}", info.ssi_signo);
  } else {
    log::info("ends: unmounted");
  }
  stop();
}

Daemon::~Daemon() { stop(); }

// Everybody who waits is answered before the session goes: first the reads, then the wire, then the names.
void Daemon::stop() {
  if (cache_requests_) cache_requests_->stop();
  control_.reset();
  if (session_) session_->stop();
  if (engines_) engines_->stop();
  if (catalog_) catalog_->stop();
  remember_servers();
  fetcher_.reset();
  catalog_.reset();
  listings_.reset();
  session_.reset();
  filesystem_.reset();
  lookahead_.reset();
  if (index_) index_->flush();  // its answers go to the engines
  engines_.reset();
  buffers_.reset();
  if (index_) {
    index_.reset();
    cache_directory_->ended();
    log::info("ended: everything is on disk");
  }
  cache_directory_.reset();
  log::flush();
  for (int* fd : {&signal_fd_, &ended_fd_}) {
    if (*fd >= 0) ::close(std::exchange(*fd, -1));
  }
}

// The origin first.
nlohmann::json Daemon::servers() const {
  constexpr std::array kRoles = {"origin", "mirror", "mirror of the manifest"};
  nlohmann::json out = nlohmann::json::array();
  for (const ServerState& s : fetcher_->servers()) {
    out.push_back({{"url", s.role == ServerRole::kOrigin ? source_ : s.url},
                   {"role", kRoles.at(static_cast<size_t>(s.role))},
                   {"rests", s.rests},
                   {"bytes_received", s.received},
                   {"files_lacked", s.files_lacked},
                   {"files_wrong", s.files_wrong}});
  }
  return out;
}

nlohmann::json Daemon::status() const {
  const auto value = [](const auto& counter) { return counter.load(std::memory_order_relaxed); };
  const Metrics& m = metrics_;
  const LinkEstimate link = fetcher_->link();
  return {
      {"mountpoint", options_.mountpoint},
      {"device", device_},
      {"url", source_},
      {"pid", ::getpid()},
      {"version", WORMHOLE_VERSION},
      {"uptime_seconds", std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - started_).count()},
      {"cache", options_.cache},
      {"io", engines_->io_backend()},
      {"engines", engines_->count()},
      {"transport", session_->transport().uring ? "uring" : "dev"},
      {"not_uring_because", session_->transport().why_not},
      {"passthrough", filesystem_->passthrough().state()},
      {"opens_passed_through", value(m.opens_passed_through)},
      {"servers", servers()},
      {"reachable", catalog_->reachable()},
      {"read_requests", value(m.read_requests)},
      {"bytes_from_network", value(m.bytes_from_network)},
      {"bytes_from_cache", value(m.bytes_from_cache)},
      {"bytes_cached", value(m.bytes_cached)},
      {"cache_size", options_.cache_size},
      {"requests_sent", value(m.requests_sent)},
      {"body_bytes_received", value(m.body_bytes_received)},
      {"fetches_in_flight", value(m.fetches_in_flight)},
      {"fetches_retried", value(m.fetches_retried)},
      {"fetches_failed", value(m.fetches_failed)},
      {"fetches_hedged", value(m.fetches_hedged)},
      {"link_bytes_per_second", link.rate},
      {"link_round_trip_ms", std::chrono::duration<double, std::milli>(link.round_trip).count()},
      {"connections_target", link.connections},
      {"window_bytes", value(m.window_bytes)},
      {"files_ahead", value(m.files_ahead)},
      {"bytes_ahead_unread", value(m.bytes_ahead_unread)},
      {"blocks_stored", value(m.blocks_stored)},
      {"blocks_corrupt", value(m.blocks_corrupt)},
      {"blocks_refused", value(m.blocks_refused)},
      {"blocks_inherited", value(m.blocks_inherited)},
      {"bytes_shared", value(m.bytes_shared)},
      {"store_errors", value(m.store_errors)},
      {"stores_without_room", value(m.stores_without_room)},
      {"bytes_evicted", value(m.bytes_evicted)},
      {"bytes_scrubbed", value(m.bytes_scrubbed)},
      {"index_commits", value(m.index_commits)},
      {"listings_fetched", value(m.listings_fetched)},
      {"stale_objects", value(m.stale_objects)},
      {"buffer_bytes", value(m.buffer_bytes)},
      {"memory", options_.memory},
  };
}

}  // namespace wormhole
