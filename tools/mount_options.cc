#include "tools/mount_options.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>

#include "net/listing_s3.h"
#include "tools/cache_home.h"

namespace wormhole {
namespace {

Result<int64_t> parse_integer(const std::string& text, int64_t min, int64_t max) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    return fail(ErrorCode::kInvalid, "expected a whole number from {} to {}", min, max);
  }
  return value;
}

template <typename T>
Status set_integer(T& field, const std::string& text, int64_t min, int64_t max) {
  const auto value = parse_integer(text, min, max);
  if (!value) return fail(value.error());
  field = static_cast<T>(*value);
  return {};
}

template <typename T>
Status set_word(T& field, const std::string& text, const std::map<std::string, T>& words) {
  if (const auto it = words.find(text); it != words.end()) {
    field = it->second;
    return {};
  }
  std::string known;
  for (const auto& [word, value] : words) known += (known.empty() ? "" : ", ") + word;
  return fail(ErrorCode::kInvalid, "expected one of: {}", known);
}

Status set_size(uint64_t& field, const std::string& text, uint64_t min) {
  const auto value = parse_size(text);
  if (!value) return fail(value.error());
  if (*value < min) return fail(ErrorCode::kInvalid, "expected at least {} bytes", min);
  field = *value;
  return {};
}

// Bytes per second, or "off".
Status set_scrub(uint64_t& rate, const std::string& text) {
  if (text == "off") {
    rate = 0;
    return {};
  }
  if (set_size(rate, text, 1 << 20)) return {};
  return fail(ErrorCode::kInvalid, "expected off, or bytes per second from 1M on");
}

Status set_percent(double& field, const std::string& text) {
  if (text.ends_with('%')) {
    if (const auto value = parse_integer(text.substr(0, text.size() - 1), 0, 99)) {
      field = static_cast<double>(*value) / 100;
      return {};
    }
  }
  return fail(ErrorCode::kInvalid, "expected a percentage from 0% to 99%");
}

Status set_umask(mode_t& field, const std::string& text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 8);
  if (error != std::errc() || end != text.data() + text.size() || value > 0777) {
    return fail(ErrorCode::kInvalid, "expected an octal number from 0 to 777");
  }
  field = value;
  return {};
}

Status set_path(std::string& field, const std::string& text) {
  if (text.empty()) return fail(ErrorCode::kInvalid, "expected a path");
  // The daemon leaves its working directory.
  if (text.front() == '/') {
    field = text;
  } else {
    char* here = ::getcwd(nullptr, 0);
    field = std::string(here != nullptr ? here : "") + "/" + text;
    std::free(here);
  }
  return {};
}

Status set_readable_file(std::string& field, const std::string& text) {
  if (auto s = set_path(field, text); !s) return s;
  if (::access(field.c_str(), R_OK) != 0) return fail(error_from_errno(errno, "it cannot be read"));
  return {};
}

Status set_log_level(log::Level& field, const std::string& text) {
  if (log::parse_level(text, &field)) return {};
  return fail(ErrorCode::kInvalid, "expected one of: debug, info, warn, error, off");
}

Status set_switch(bool& field, const std::string& text) {
  return set_word(field, text, {{"auto", true}, {"on", true}, {"off", false}});
}

Status set_connections(int& field, const std::string& text) {
  if (text == "auto") {
    field = 0;
    return {};
  }
  if (set_integer(field, text, 1, 256)) return {};
  return fail(ErrorCode::kInvalid, "expected auto or a whole number from 1 to 256");
}

Status set_engines(unsigned& field, const std::string& text) {
  if (text == "auto") {
    field = 0;
    return {};
  }
  if (set_integer(field, text, 1, kMostEngines)) return {};
  return fail(ErrorCode::kInvalid, "expected auto or a whole number from 1 to {}", kMostEngines);
}

Status add_mirror(std::vector<std::string>& mirrors, const std::string& text) {
  const auto url = Url::parse(text);
  if (!url) return fail(url.error());
  if (!url->user().empty() || !url->password().empty())
    return fail(ErrorCode::kInvalid, "a mirror is asked without credentials: leave user and password out");
  mirrors.push_back(url->str());
  return {};
}

Status add_interface(std::vector<std::string>& interfaces, const std::string& text) {
  if (text.empty()) return fail(ErrorCode::kInvalid, "expected a network device or a local address");
  interfaces.push_back(text);
  return {};
}

// http://, https:// and socks5h:// among others: what libcurl takes. A password in it would be in the mount's
// arguments.
Status set_proxy(std::string& field, const std::string& text) {
  if (text.empty()) return fail(ErrorCode::kInvalid, "expected the URL of a proxy");
  if (text.find('@') != std::string::npos)
    return fail(ErrorCode::kInvalid,
                "no credentials here, everybody sees them: set them in $https_proxy or $http_proxy");
  field = text;
  return {};
}

Status set_endpoint(std::string& field, const std::string& text) {
  const auto place = s3_place("s3://bucket/", text, "");
  if (text.empty() || !place) return fail(ErrorCode::kInvalid, "expected the http:// or https:// URL of an S3 server");
  if (!place->url.user().empty() || !place->url.password().empty())
    return fail(ErrorCode::kInvalid, "no credentials here, everybody sees them: use aws-credentials=FILE");
  field = text;
  return {};
}

Status set_manifest(std::optional<Hash256>& field, const std::string& text) {
  field = Hash256::from_hex(text);
  if (!field) return fail(ErrorCode::kInvalid, "expected the 64 hex digits that `wormhole index` has told");
  return {};
}

// It becomes part of a host's name.
Status set_region(std::string& field, const std::string& text) {
  const auto fits = [](unsigned char c) { return std::isalnum(c) || c == '-'; };
  if (text.empty() || !std::all_of(text.begin(), text.end(), fits))
    return fail(ErrorCode::kInvalid, "expected the name of a region such as eu-central-1");
  field = text;
  return {};
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// Below it a read of the kernel takes longer than people wait.
constexpr uint64_t kMinRate = 16 << 10;

// The smallest memory budget with which a reader and its read-ahead still overlap: two parts of each size.
constexpr uint64_t kMinMemory = 16ull << 20;

using Setter = std::function<Status(MountOptions&, const std::string&)>;

const std::map<std::string, Setter>& setters() {
  static const std::map<std::string, Setter> table = {
      {"cache", [](MountOptions& o, auto& v) { return set_path(o.cache, v); }},
      {"cache-size", [](MountOptions& o, auto& v) { return set_size(o.cache_size, v, 0); }},
      {"min-free", [](MountOptions& o, auto& v) { return set_percent(o.min_free, v); }},
      {"memory", [](MountOptions& o, auto& v) { return set_size(o.memory, v, kMinMemory); }},
      {"engines", [](MountOptions& o, auto& v) { return set_engines(o.engines, v); }},
      {"timeout",
       [](MountOptions& o, auto& v) {
         int64_t seconds = 0;
         auto s = set_integer(seconds, v, 1, 86400);
         if (s) o.timeout = std::chrono::seconds(seconds);
         return s;
       }},
      {"ttl", [](MountOptions& o, auto& v) { return set_integer(o.ttl, v, 0, 1'000'000'000); }},
      {"connections", [](MountOptions& o, auto& v) { return set_connections(o.curl.connections, v); }},
      {"http",
       [](MountOptions& o, auto& v) {
         return set_word(o.curl.http, v,
                         {{"auto", HttpVersion::kAuto},
                          {"1.1", HttpVersion::k1_1},
                          {"2", HttpVersion::k2},
                          {"3", HttpVersion::k3}});
       }},
      {"offline",
       [](MountOptions& o, auto& v) {
         return set_word(o.offline, v,
                         {{"auto", OfflineMode::kAuto}, {"on", OfflineMode::kOn}, {"off", OfflineMode::kOff}});
       }},
      {"verify",
       [](MountOptions& o, auto& v) {
         return set_word(o.verify, v,
                         {{"auto", VerifyMode::kAuto}, {"always", VerifyMode::kAlways}, {"off", VerifyMode::kOff}});
       }},
      {"speculate", [](MountOptions& o, auto& v) { return set_switch(o.speculate, v); }},
      {"scrub", [](MountOptions& o, auto& v) { return set_scrub(o.scrubber.rate, v); }},
      {"transport",
       [](MountOptions& o, auto& v) {
         return set_word(
             o.transport, v,
             {{"auto", FuseTransport::kAuto}, {"dev", FuseTransport::kDev}, {"uring", FuseTransport::kUring}});
       }},
      {"passthrough", [](MountOptions& o, auto& v) { return set_switch(o.passthrough, v); }},
      {"mirror", [](MountOptions& o, auto& v) { return add_mirror(o.curl.mirrors, v); }},
      {"hedge", [](MountOptions& o, auto& v) { return set_switch(o.curl.hedge, v); }},
      {"keep-warm", [](MountOptions& o, auto& v) { return set_switch(o.curl.keep_warm, v); }},
      {"limit-rate", [](MountOptions& o, auto& v) { return set_size(o.curl.limit_rate, v, kMinRate); }},
      {"bind", [](MountOptions& o, auto& v) { return add_interface(o.curl.interfaces, v); }},
      {"proxy", [](MountOptions& o, auto& v) { return set_proxy(o.curl.proxy, v); }},
      {"ca", [](MountOptions& o, auto& v) { return set_readable_file(o.curl.ca_file, v); }},
      {"cert", [](MountOptions& o, auto& v) { return set_readable_file(o.curl.certificate_file, v); }},
      {"key", [](MountOptions& o, auto& v) { return set_readable_file(o.curl.key_file, v); }},
      {"netrc", [](MountOptions& o, auto& v) { return set_readable_file(o.curl.credentials.netrc_file, v); }},
      {"token-file", [](MountOptions& o, auto& v) { return set_readable_file(o.curl.credentials.token_file, v); }},
      {"header-file", [](MountOptions& o, auto& v) { return set_readable_file(o.curl.credentials.header_file, v); }},
      {"aws-credentials", [](MountOptions& o, auto& v) { return set_readable_file(o.curl.credentials.aws_file, v); }},
      {"endpoint", [](MountOptions& o, auto& v) { return set_endpoint(o.endpoint, v); }},
      {"region", [](MountOptions& o, auto& v) { return set_region(o.region, v); }},
      {"listing",
       [](MountOptions& o, auto& v) {
         return set_word(o.listing.kind, v,
                         {{"auto", ListingKind::kAuto},
                          {"html", ListingKind::kHtml},
                          {"json", ListingKind::kJson},
                          {"webdav", ListingKind::kWebdav},
                          {"s3", ListingKind::kS3},
                          {"file", ListingKind::kFile},
                          {"manifest", ListingKind::kManifest}});
       }},
      {"manifest-key", [](MountOptions& o, auto& v) { return set_readable_file(o.manifest_key_file, v); }},
      {"manifest-mirrors", [](MountOptions& o, auto& v) { return set_switch(o.manifest_mirrors, v); }},
      {"manifest", [](MountOptions& o, auto& v) { return set_manifest(o.manifest, v); }},
      {"log", [](MountOptions& o, auto& v) { return set_path(o.log_file, v); }},
      {"log-level", [](MountOptions& o, auto& v) { return set_log_level(o.log_level, v); }},
      {"uid", [](MountOptions& o, auto& v) { return set_integer(o.filesystem.uid, v, 0, UINT32_MAX - 1); }},
      {"gid", [](MountOptions& o, auto& v) { return set_integer(o.filesystem.gid, v, 0, UINT32_MAX - 1); }},
      {"umask", [](MountOptions& o, auto& v) { return set_umask(o.filesystem.umask, v); }},
  };
  return table;
}

// What the kernel or fusermount3 understands.
const std::set<std::string> kKernelOptions = {"allow_other", "nosuid", "nodev", "noexec", "suid",
                                              "dev",         "exec",   "sync",  "async",  "noatime"};
// What mount(8), fstab and systemd say to each other, and what goes without saying ("rw": the mount is read-only all
// the same).
const std::set<std::string> kIgnoredOptions = {
    "defaults", "ro",       "rw",         "auto",       "noauto",        "user",     "nouser",    "users", "owner",
    "group",    "nofail",   "_netdev",    "relatime",   "strictatime",   "atime",    "silent",    "loud",  "mand",
    "nomand",   "diratime", "nodiratime", "norelatime", "nostrictatime", "lazytime", "nolazytime"};

Status parse_one(const std::string& option, MountOptions& options) {
  const size_t equals = option.find('=');
  const std::string name = option.substr(0, equals);
  if (kKernelOptions.contains(option)) {
    options.kernel.push_back(option);
    return {};
  }
  if (kIgnoredOptions.contains(name) || name.starts_with("x-") || name == "comment") return {};
  const auto it = setters().find(name);
  if (it == setters().end())
    return fail(ErrorCode::kInvalid, "unknown mount option: {} (see man wormhole-mount)", name);
  if (equals == std::string::npos) return fail(ErrorCode::kInvalid, "mount option {} needs a value: {}=…", name, name);
  const std::string value = option.substr(equals + 1);
  if (auto s = it->second(options, value); !s) {
    return fail(ErrorCode::kInvalid, "mount option {}={}: {}", name, value, s.error().message);
  }
  return {};
}

}  // namespace

Status parse_mount_options(const std::string& list, MountOptions& options) {
  for (size_t begin = 0; begin < list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    if (end > begin) {
      if (auto s = parse_one(list.substr(begin, end - begin), options); !s) return s;
    }
    begin = end + 1;
  }
  return {};
}

Result<Url> resolve_url(MountOptions& o) {
  const bool is_s3_url = o.url.starts_with("s3://");
  if (is_s3_url && o.listing.kind == ListingKind::kAuto) o.listing.kind = ListingKind::kS3;
  const bool is_s3 = o.listing.kind == ListingKind::kS3;
  CredentialOptions& c = o.curl.credentials;
  if (!is_s3 && !(is_s3_url && o.listing.kind == ListingKind::kFile)) {
    if (is_s3_url) return fail(ErrorCode::kInvalid, "a URL with s3:// goes with listing=s3 or listing=file");
    const char* const s3_only = !o.endpoint.empty()   ? "endpoint"
                                : !o.region.empty()   ? "region"
                                : !c.aws_file.empty() ? "aws-credentials"
                                                      : nullptr;
    if (s3_only != nullptr) return fail(ErrorCode::kInvalid, "{} goes with s3://BUCKET or listing=s3", s3_only);
    return Url::parse(o.url);
  }
  if (!is_s3_url && !o.endpoint.empty()) return fail(ErrorCode::kInvalid, "endpoint goes with s3://BUCKET");
  if (o.region.empty()) o.region = environment("AWS_REGION");
  if (o.region.empty()) o.region = environment("AWS_DEFAULT_REGION");
  if (o.region.empty()) o.region = c.aws_region;
  if (auto s = set_region(c.aws_region, o.region); !s) return fail(s.error());
  if (const std::string profile = environment("AWS_PROFILE"); !profile.empty()) c.aws_profile = profile;
  AwsKeys keys{environment("AWS_ACCESS_KEY_ID"), environment("AWS_SECRET_ACCESS_KEY"),
               environment("AWS_SESSION_TOKEN")};
  if (!keys.id.empty() && !keys.secret.empty()) c.aws_keys = std::move(keys);
  if (!is_s3_url) return Url::parse(o.url);
  auto place = s3_place(o.url, o.endpoint, o.region);
  if (!place) return fail(place.error());
  o.listing.bucket = place->style;
  return std::move(place->url);
}

Result<uint64_t> parse_size(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(end, static_cast<size_t>(text.data() + text.size() - end));
  if (unit.ends_with("iB")) unit.resize(1);
  static const std::map<std::string, int> kShifts = {{"", 0},   {"B", 0},  {"K", 10}, {"k", 10},
                                                     {"M", 20}, {"G", 30}, {"T", 40}};
  const auto shift = kShifts.find(unit);
  if (error != std::errc() || shift == kShifts.end() || value > (UINT64_MAX >> shift->second)) {
    return fail(ErrorCode::kInvalid, "expected a size such as 512M or 10G");
  }
  return value << shift->second;
}

std::string default_cache_directory(const Url& url) {
  return cache_home() + "/" + distinct_name(url.host() + url.path(), url.display());
}

}  // namespace wormhole
