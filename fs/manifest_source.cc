#include "fs/manifest_source.h"

#include "base/log.h"
#include "manifest/blake3.h"
#include "manifest/signature.h"
#include "net/url.h"

namespace wormhole {
namespace {

// A head that could not be had anew is used on, and asked for again after so long.
constexpr int64_t kAskAgainAfter = 5;

// One that is in doubt is asked for no more often: a file that is wrong for good is read again and again by some.
constexpr int64_t kDoubtedAfter = 1;

// The segments of `url` below `root`, decoded.
Result<std::vector<std::string>> path_below(std::string_view root, std::string_view url) {
  if (!url.starts_with(root)) return fail(ErrorCode::kInvalid, "{} is not below {}", url, root);
  std::vector<std::string> out;
  for (url.remove_prefix(root.size()); !url.empty();) {
    const size_t slash = url.find('/');
    auto name = decode_segment(url.substr(0, slash));
    if (!name) return fail(name.error());
    out.push_back(std::move(*name));
    url = slash == url.npos ? std::string_view() : url.substr(slash + 1);
  }
  return out;
}

}  // namespace

ManifestSource::ManifestSource(ManifestOptions options, std::string root, std::unique_ptr<ListingSource> otherwise,
                               Fetcher& fetcher, BufferPool& buffers, Metrics& metrics, AllReaders& all, Index& index,
                               const Clock& clock)
    : options_(std::move(options)),
      root_(std::move(root)),
      otherwise_(std::move(otherwise)),
      fetcher_(fetcher),
      buffers_(buffers),
      metrics_(metrics),
      all_(all),
      index_(index),
      clock_(clock) {
  if (const auto text = index_.host(record_key())) known_ = decode_known_manifest(*text);
}

// Those who wait hold their tree, and it them.
ManifestSource::~ManifestSource() {
  if (tree_) tree_->abandon();
  for (const auto& weak : older_) {
    if (const auto older = weak.lock()) older->abandon();
  }
}

std::string ManifestSource::url_of(std::string_view name) const {
  return fmt::format("{}{}/{}", root_, kManifestDirectory, name);
}

void ManifestSource::list(ListingRequest request) {
  const auto post = request.post;
  post([this, r = std::make_shared<ListingRequest>(std::move(request))] { list_here(std::move(*r)); });
}

// A pinned manifest is another one than what stands in its place now.
std::string ManifestSource::record_key() const {
  return url_of(options_.pinned ? pinned_head_name(*options_.pinned) : std::string(kHeadName));
}

void ManifestSource::recall() const {
  if (known_.sequence > 0 && options_.believed) options_.believed(known_);
}

void ManifestSource::list_here(ListingRequest request) {
  if (kind_ == Kind::kOther) return otherwise_->list(std::move(request));
  const int64_t age = clock_.unix_seconds() - checked_at_;
  const bool doubted = doubted_.load(std::memory_order_relaxed) && age >= kDoubtedAfter;
  const bool fresh = age >= 0 && !doubted && (age < options_.ttl || (failed_ && age < kAskAgainAfter));
  if (tree_ != nullptr && (fresh || options_.pinned)) return list_in_tree(std::move(request));
  if (!asking_) ask_for_head(request);
  waiting_.push_back(std::move(request));
}

// --- the head ------------------------------------------------------------------------------------------------------

void ManifestSource::ask_for_head(const ListingRequest& like) {
  asking_ = true;
  doubted_.store(false, std::memory_order_relaxed);
  post_ = like.post;
  patience_ = like.patience;
  DocumentRequest request;
  request.url = record_key();
  request.max_bytes = kMostHeadBytes;
  request.patience = patience_;
  ask_for_document(fetcher_, std::move(request), post_, [this](Result<Document> head) { head_came(std::move(head)); });
}

void ManifestSource::head_came(Result<Document> head) {
  if (!head) {
    asking_ = false;
    // Whatever else is wrong with the server, the listing will tell.
    const bool is_none = !server_did_not_speak(head.error().code) && head.error().code != ErrorCode::kCancelled;
    if (is_none && kind_ == Kind::kUnknown && !options_.required) {
      has_none();
    } else {
      failed_ = head.error();
      failed_->message = "the manifest cannot be had: " + failed_->message;
    }
    return answer_waiting();
  }
  if (!head->body.starts_with("WORMHOLE") && kind_ == Kind::kUnknown && !options_.required) {
    asking_ = false;  // a page that the server sends for anything
    has_none();
    return answer_waiting();
  }
  if (!options_.check_signature) {
    asking_ = false;
    if (auto taken = take_head(head->body, nullptr); !taken) failed_ = taken.error();
    return answer_waiting();
  }
  // The signature of this very head, whatever is put in its place meanwhile.
  DocumentRequest request;
  request.url = url_of(pinned_signature_name(blake3(head->body)));
  request.max_bytes = kMostSignatureBytes;
  request.patience = patience_;
  ask_for_document(fetcher_, std::move(request), post_,
                   [this, bytes = std::move(head->body)](Result<Document> signature) {
                     signature_came(bytes, std::move(signature));
                   });
}

void ManifestSource::has_none() {
  kind_ = Kind::kOther;
  if (options_.believed) options_.believed({});
}

void ManifestSource::signature_came(const std::string& head, Result<Document> signature) {
  asking_ = false;
  if (!signature) {
    failed_ = signature.error().code == ErrorCode::kNotFound
                  ? Error{ErrorCode::kForbidden, url_of(kHeadName) + ": it is not signed, and key= asks for that"}
                  : signature.error();
  } else if (auto taken = take_head(head, &signature->body); !taken) {
    failed_ = taken.error();
  }
  answer_waiting();
}

Status ManifestSource::take_head(std::string_view bytes, const std::string* signature) {
  const Hash256 hash = blake3(bytes);
  if (options_.pinned && hash != *options_.pinned)
    return fail(ErrorCode::kCorrupt, "{}: it is not the manifest that was named", root_);
  if (signature != nullptr) {
    if (auto ok = options_.check_signature(bytes, *signature); !ok) return ok;
  }
  auto head = decode_head(bytes);
  if (!head) return fail(head.error());
  if (head->sequence < known_.sequence && !options_.pinned) {
    return fail(ErrorCode::kStale, "{}: its manifest is older ({}) than one that was seen before ({}): not believed",
                root_, head->sequence, known_.sequence);
  }
  failed_.reset();
  kind_ = Kind::kManifest;
  checked_at_ = clock_.unix_seconds();
  if (tree_ != nullptr && hash == head_hash_) return {};
  if (auto now = known_manifest(*head); now != known_) {
    known_ = std::move(now);
    index_.put_host(record_key(), encode(known_));
  }
  if (options_.believed) options_.believed(known_);
  log::info("manifest: url={} sequence={} files={} bytes={} signed={}", root_, head->sequence, head->files, head->bytes,
            signature != nullptr);
  head_hash_ = hash;
  const std::string pages = url_of(pages_name(head->pages));
  trees_ = std::make_shared<TreesFile>(TreesFile{pages, head->pages_bytes});
  std::erase_if(older_, [](const auto& weak) { return weak.expired(); });
  if (tree_) older_.push_back(tree_);
  tree_ = std::make_shared<ManifestTree>(std::move(*head), pages, fetcher_, buffers_, metrics_, all_, patience_,
                                         [post = post_](Task task) { post(std::move(task)); });
  return {};
}

void ManifestSource::answer_waiting() {
  if (failed_) {
    log::warn("manifest: url={} error={} \"{}\"{}", root_, to_string(failed_->code), failed_->message,
              tree_ ? ", the one before is used on" : "");
    checked_at_ = clock_.unix_seconds();
  }
  for (ListingRequest& request : std::exchange(waiting_, {})) {
    if (kind_ == Kind::kOther) {
      otherwise_->list(std::move(request));
    } else if (tree_ != nullptr) {
      list_in_tree(std::move(request));
    } else {
      // What is no manifest that may be believed is as good as no answer: what was known before stays.
      const bool refused = !server_did_not_speak(failed_->code) && failed_->code != ErrorCode::kCancelled;
      request.done(fail(Error{refused ? ErrorCode::kBadResponse : failed_->code, failed_->message}));
    }
  }
}

// --- a directory ---------------------------------------------------------------------------------------------------

void ManifestSource::list_in_tree(ListingRequest request) {
  auto path = path_below(root_, request.directory);
  if (!path) return request.done(fail(path.error()));
  const bool is_root = path->empty();
  // A newer manifest may come meanwhile: what was asked of this one is answered by this one, with its trees.
  tree_->list(std::move(*path), [is_root, tree = tree_, trees = trees_, done = std::move(request.done)](auto entries) {
    entries ? done(listing_of_entries(std::move(*entries), is_root, trees)) : done(fail(entries.error()));
  });
}

Listing ManifestSource::listing_of_entries(std::vector<ManifestEntry> entries, bool is_root,
                                           const std::shared_ptr<const TreesFile>& trees) {
  Listing listing;
  listing.entries.reserve(entries.size());
  for (ManifestEntry& e : entries) {
    if (is_root && e.name == kManifestDirectory) continue;
    ListedEntry out;
    out.name = std::move(e.name);
    out.mode = e.mode;
    out.mtime = e.mtime;
    out.mtime_ns = static_cast<int32_t>(e.mtime_ns);
    out.mtime_granularity = 1;
    switch (e.type) {
      case ManifestEntry::Type::kDirectory: out.type = EntryType::kDirectory; break;
      case ManifestEntry::Type::kSymlink:
        out.type = EntryType::kSymlink;
        out.target = std::move(e.target);
        break;
      case ManifestEntry::Type::kFile:
        out.type = EntryType::kFile;
        out.size = e.size;
        if (e.hash) out.content = std::make_shared<Content>(Content{*e.hash, e.tree, trees});
        break;
    }
    listing.entries.push_back(std::move(out));
  }
  return listing;
}

}  // namespace wormhole
