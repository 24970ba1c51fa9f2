#include "net/listing_s3.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>

#include "base/log.h"
#include "net/dates.h"
#include "net/listing_names.h"
#include "net/response.h"
#include "net/xml_events.h"

namespace wormhole {
namespace {

// A page of 1000 keys of the greatest length, 1024 bytes, each as %XX, is 4 MiB.
constexpr uint64_t kPageLimit = 16ull << 20;

// A directory with more is none that anybody can list: 1 000 000 are 1000 round trips, and 200 MB here.
constexpr size_t kMostEntries = 1'000'000;

// A page may be empty (what was deleted lately). A server that sends more of them in a row gets nowhere.
constexpr int kMostEmptyPages = 16;

// A value that is longer is none of ours: a key, each byte as %XX.
constexpr size_t kLongestValue = 16 * 1024;

// encoding-type=url writes a space as '+' and a plus as %2B, as forms do.
Result<std::string> decode_key(std::string text) {
  std::replace(text.begin(), text.end(), '+', ' ');
  return decode_segment(text);
}

class PageHandler final : public XmlHandler {
 public:
  struct Object {
    std::string key, size, modified, etag;
  };

  void start_element(std::string_view, std::string_view name) override {
    ++depth_;
    text_.clear();
    if (depth_ == 1) is_listing = name == kBucketElement;
    if (depth_ == 2) {
      parent_ = name;
      if (name == "Contents") objects.emplace_back();
    }
  }

  void end_element(std::string_view, std::string_view name) override {
    if (depth_ == 2) take(name);
    if (depth_ == 3 && parent_ == "Contents") take_fact(objects.back(), name);
    if (depth_ == 3 && parent_ == "CommonPrefixes" && name == "Prefix") prefixes.push_back(text_);
    --depth_;
    text_.clear();
  }

  void text(std::string_view text) override {
    text_ += text.substr(0, kLongestValue - std::min(text_.size(), kLongestValue));
  }

  bool is_listing = false;
  std::string bucket;
  std::optional<std::string> prefix;
  bool encoded = false;
  bool truncated = false;
  std::string next_token;
  std::vector<Object> objects;
  std::vector<std::string> prefixes;

 private:
  void take(std::string_view name) {
    if (name == "Name") bucket = text_;
    if (name == "Prefix") prefix = text_;
    if (name == "EncodingType") encoded = text_ == "url";
    if (name == "IsTruncated") truncated = text_ == "true";
    if (name == "NextContinuationToken") next_token = text_;
  }

  void take_fact(Object& object, std::string_view name) const {
    if (name == "Key") object.key = text_;
    if (name == "Size") object.size = text_;
    if (name == "LastModified") object.modified = text_;
    if (name == "ETag") object.etag = text_;
  }

  int depth_ = 0;
  std::string parent_;  // the element of depth 2 that is open
  std::string text_;    // of the innermost element
};

// The name of what a key (or a common prefix, which ends with '/') is in the directory; "" for the directory's own key.
std::optional<std::string> name_below(std::string_view key, std::string_view prefix, bool directory) {
  if (!key.starts_with(prefix)) return std::nullopt;
  key.remove_prefix(prefix.size());
  if (directory) {
    if (!key.ends_with('/')) return std::nullopt;
    key.remove_suffix(1);
  }
  return std::string(key);
}

bool is_bucket_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) || c == '.' || c == '-' || c == '_';
  });
}

}  // namespace

Result<S3Place> s3_place(std::string_view text, const std::string& endpoint, const std::string& region) {
  constexpr std::string_view kScheme = "s3://", kMark = "{bucket}";
  std::string_view rest = text.substr(std::min(kScheme.size(), text.size()));
  const std::string bucket(rest.substr(0, rest.find('/')));
  if (!text.starts_with(kScheme) || !is_bucket_name(bucket))
    return fail(ErrorCode::kInvalid, "the URL names no bucket: expected s3://BUCKET or s3://BUCKET/PREFIX/");
  rest.remove_prefix(bucket.size());
  // Raw bytes, as people write keys.
  std::string path;
  for (const char c : rest) path += c == '/' ? std::string("/") : encode_segment(std::string_view(&c, 1));
  if (path.empty()) path = "/";

  S3Place place;
  std::string base = endpoint;
  while (base.ends_with('/')) base.pop_back();
  if (const size_t mark = base.find(kMark); mark != base.npos) {
    base.replace(mark, kMark.size(), bucket);
  } else if (!base.empty()) {
    place.style = BucketStyle::kPath;
  } else if (bucket.find('.') != bucket.npos) {
    // Amazon's certificate is for one label.
    place.style = BucketStyle::kPath;
    base = fmt::format("https://s3.{}.amazonaws.com", region);
  } else {
    base = fmt::format("https://{}.s3.{}.amazonaws.com", bucket, region);
  }
  auto url = Url::parse(base + (place.style == BucketStyle::kPath ? "/" + bucket : "") + path);
  if (!url) return fail(url.error());
  place.url = std::move(*url);
  return place;
}

Result<S3Question> s3_question(const Url& directory, BucketStyle style) {
  S3Question q;
  std::string_view path = std::string_view(directory.path()).substr(1);
  const std::string& text = directory.str();
  q.base = text.substr(0, text.find('/', text.find("://") + 3));
  if (style == BucketStyle::kPath) {
    auto bucket = decode_segment(path.substr(0, path.find('/')));
    if (!bucket) return fail(bucket.error());
    q.bucket = std::move(*bucket);
    if (q.bucket.empty()) return fail(ErrorCode::kInvalid, "{}: names no bucket", directory.display());
    q.base += "/" + encode_segment(q.bucket);
    path.remove_prefix(std::min(path.find('/'), path.size() - 1) + 1);
  } else {
    q.base += "/";
  }
  auto prefix = decode_segment(path);
  if (!prefix) return fail(prefix.error());
  q.prefix = std::move(*prefix);
  return q;
}

std::string s3_listing_url(const S3Question& q, const std::string& token) {
  // In the order of the names, as signatures want them.
  std::string url = q.base + "?";
  if (!token.empty()) url += "continuation-token=" + encode_segment(token) + "&";
  return url + "delimiter=%2F&encoding-type=url&list-type=2&max-keys=1000&prefix=" + encode_segment(q.prefix);
}

BucketStyle bucket_style_of(const Url& url) {
  const std::string& host = url.host();
  if (!host.ends_with(".amazonaws.com") && !host.ends_with(".amazonaws.com.cn")) return BucketStyle::kAuto;
  return host.starts_with("s3.") || host.starts_with("s3-") ? BucketStyle::kPath : BucketStyle::kHost;
}

Result<S3Page> read_s3_page(std::string_view document, const S3Question& q, EntryList& entries) {
  PageHandler page;
  XmlReader reader(page);
  auto read = reader.feed(document);
  if (read) read = reader.finish();
  if (!read) return fail(ErrorCode::kBadResponse, "no S3 listing: {}", read.error().message);
  if (!page.is_listing) return fail(ErrorCode::kBadResponse, "no S3 listing: no {}", kBucketElement);
  if (!q.bucket.empty() && page.bucket != q.bucket)
    return fail(ErrorCode::kBadResponse, "a listing of bucket {} instead of {}", in_quotes(page.bucket),
                in_quotes(q.bucket));
  const auto decode = [&](const std::string& text) { return page.encoded ? decode_key(text) : text; };
  if (page.prefix && decode(*page.prefix) != q.prefix)
    return fail(ErrorCode::kBadResponse, "a listing of prefix {} instead of {}", in_quotes(*page.prefix),
                in_quotes(q.prefix));
  if (page.truncated && page.next_token.empty())
    return fail(ErrorCode::kBadResponse, "a listing with more to come, and no token to get it (no ListObjectsV2?)");

  for (const PageHandler::Object& object : page.objects) {
    const auto key = decode(object.key);
    const auto name = key ? name_below(*key, q.prefix, /*directory=*/false) : std::nullopt;
    if (name && name->empty()) continue;  // what some programs leave for an empty directory
    ListedEntry* entry = name ? entries.add(*name, EntryType::kFile) : nullptr;
    if (!name) entries.refuse(object.key);
    if (entry == nullptr) continue;
    entry->size = parse_listed_size(object.size);
    entry->mtime = parse_rfc3339(object.modified);
    entry->etag = object.etag;
  }
  for (const std::string& common : page.prefixes) {
    const auto key = decode(common);
    const auto name = key ? name_below(*key, q.prefix, /*directory=*/true) : std::nullopt;
    if (name) {
      entries.add(*name, EntryType::kDirectory);
    } else {
      entries.refuse(common);
    }
  }
  return S3Page{page.truncated ? page.next_token : "", page.objects.size() + page.prefixes.size()};
}

namespace {

class S3Source final : public ListingSource {
 public:
  S3Source(BucketStyle style, Fetcher& fetcher) : style_(style), fetcher_(fetcher) {}

  void list(ListingRequest request) override {
    auto walk = std::make_shared<Walk>();
    walk->request = std::move(request);
    auto url = Url::parse(walk->request.directory);
    if (!url) return walk->request.done(fail(url.error()));
    walk->directory = std::move(*url);
    BucketStyle style = style_.load(std::memory_order_relaxed);
    if (style == BucketStyle::kAuto) style = bucket_style_of(walk->directory);
    walk->may_be_host = style == BucketStyle::kAuto;
    if (style == BucketStyle::kAuto) style = walk->directory.path() == "/" ? BucketStyle::kHost : BucketStyle::kPath;
    begin(walk, style);
  }

 private:
  // One directory, page by page.
  struct Walk {
    ListingRequest request;
    Url directory;
    BucketStyle style = BucketStyle::kPath;
    bool may_be_host = false;  // the path style was tried first, and has not worked yet
    std::optional<Error> first_error;
    S3Question question;
    EntryList entries;
    std::set<std::string> tokens;
    uint64_t told = 0;
    int empty_pages = 0;
    bool found_any = false;
  };
  using WalkRef = std::shared_ptr<Walk>;

  void begin(const WalkRef& walk, BucketStyle style) {
    auto question = s3_question(walk->directory, style);
    if (!question) return end(walk, question.error());
    walk->style = style;
    walk->question = std::move(*question);
    ask(walk, "");
  }

  void ask(const WalkRef& walk, const std::string& token) {
    DocumentRequest document;
    document.url = s3_listing_url(walk->question, token);
    document.patience = walk->request.patience;
    document.max_bytes = kPageLimit;
    ask_for_document(fetcher_, std::move(document), walk->request.post, [this, walk](Result<Document> d) {
      if (!d) return failed(walk, d.error());
      arrived(walk, *d);
    });
  }

  void arrived(const WalkRef& walk, const Document& document) {
    auto page = read_s3_page(document.body, walk->question, walk->entries);
    if (!page) return failed(walk, {page.error().code, walk->directory.display() + ": " + page.error().message});
    style_.store(walk->style, std::memory_order_relaxed);
    walk->may_be_host = false;
    walk->found_any |= page->listed > 0;
    walk->empty_pages = page->listed > 0 ? 0 : walk->empty_pages + 1;
    if (page->next_token.empty()) return complete(walk);
    tell(*walk);
    if (!walk->tokens.insert(page->next_token).second) return endless(walk, "a token came twice");
    if (walk->empty_pages > kMostEmptyPages) return endless(walk, "one empty page after the other");
    if (walk->entries.listing().entries.size() > kMostEntries)
      return endless(walk, fmt::format("more than {} entries", kMostEntries));
    ask(walk, page->next_token);
  }

  static void tell(Walk& walk) {
    const auto& all = walk.entries.listing().entries;
    if (!walk.request.arrived || all.size() == walk.told) return;
    walk.request.arrived({all.begin() + static_cast<std::ptrdiff_t>(walk.told), all.end()});
    walk.told = all.size();
  }

  void complete(const WalkRef& walk) {
    // A prefix is there as long as a key begins with it.
    if (!walk->found_any && !walk->question.prefix.empty())
      return end(walk, {ErrorCode::kNotFound, walk->directory.display() + ": no key of the bucket begins with that"});
    walk->request.done(walk->entries.take());
  }

  static void endless(const WalkRef& walk, const std::string& why) {
    end(walk,
        {ErrorCode::kBadResponse, fmt::format("{}: the listing does not end: {}", walk->directory.display(), why)});
  }

  void failed(const WalkRef& walk, const Error& error) {
    if (!walk->may_be_host || server_did_not_speak(error.code) || error.code == ErrorCode::kCancelled)
      return end(walk, error);
    walk->may_be_host = false;
    if (walk->style == BucketStyle::kHost) return end(walk, error);
    walk->first_error = error;
    begin(walk, BucketStyle::kHost);
  }

  static void end(const WalkRef& walk, const Error& error) {
    walk->request.done(fail(walk->first_error.value_or(error)));
  }

  std::atomic<BucketStyle> style_;
  Fetcher& fetcher_;
};

}  // namespace

std::unique_ptr<ListingSource> make_s3_source(BucketStyle style, Fetcher& fetcher) {
  return std::make_unique<S3Source>(style, fetcher);
}

}  // namespace wormhole
