// Directories by WebDAV: the multistatus that answers a PROPFIND (RFC 4918, sections 9.1 and 13).
//
// The name comes from the href, the kind from resourcetype: servers differ in whether a collection's href ends with
// '/'. Only what stands in a propstat of status 2xx is a fact.

#include <algorithm>

#include "net/dates.h"
#include "net/listing.h"
#include "net/listing_names.h"
#include "net/xml_events.h"

namespace wormhole {
namespace {

constexpr std::string_view kDav = "DAV:";

// A value that is longer is none of ours; an href has at most 255 bytes behind the directory, each as %XX.
constexpr size_t kLongestValue = 16 * 1024;

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  return first == text.npos ? "" : text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// "HTTP/1.1 200 OK"
bool is_success(std::string_view status) {
  const size_t space = status.find(' ');
  return space != status.npos && status.substr(space + 1).starts_with('2');
}

// What is said of one resource.
struct Facts {
  bool collection = false;
  std::string size, modified, etag;

  // Those of a propstat that is known to have succeeded.
  void add(Facts&& more) {
    collection |= more.collection;
    if (!more.size.empty()) size = std::move(more.size);
    if (!more.modified.empty()) modified = std::move(more.modified);
    if (!more.etag.empty()) etag = std::move(more.etag);
  }
};

class WebdavListingParser final : public ListingParser, XmlHandler {
 public:
  explicit WebdavListingParser(const Url& page) : page_(page), links_(page), reader_(*this) {}

  Status feed(std::string_view bytes) override { return check(reader_.feed(bytes)); }

  Result<Listing> finish() override {
    if (auto ok = check(reader_.finish()); !ok) return fail(ok.error());
    if (!is_multistatus_)
      return fail(ErrorCode::kBadResponse, "no directory listing: {} is no WebDAV multistatus", page_.display());
    if (is_file_ && entries_.listing().entries.empty())
      return fail(ErrorCode::kNotDirectory, "{}: the server says that it is a file", page_.display());
    return entries_.take();
  }

 private:
  Status check(Status status) const {
    if (status) return status;
    return fail(ErrorCode::kBadResponse, "no directory listing: {}: {}", page_.display(), status.error().message);
  }

  void start_element(std::string_view space, std::string_view name) override {
    ++depth_;
    text_.clear();
    if (space != kDav) return;
    if (depth_ == 1) is_multistatus_ = name == "multistatus";
    if (name == "response" && depth_ == 2) {
      href_.clear();
      facts_ = {};
      failed_ = false;
    }
    if (name == "propstat" && depth_ == 3) {
      said_ = {};
      succeeded_ = false;
    }
    if (name == "resourcetype") in_type_ = true;
    if (name == "collection" && in_type_) said_.collection = true;
  }

  void end_element(std::string_view space, std::string_view name) override {
    if (space == kDav && is_multistatus_) take(name);
    --depth_;
    text_.clear();
  }

  void text(std::string_view text) override {
    text_ += text.substr(0, kLongestValue - std::min(text_.size(), kLongestValue));
  }

  void take(std::string_view name) {
    const std::string_view value = trim(text_);
    if (name == "href" && depth_ == 3) href_ = value;
    if (name == "status" && depth_ == 3) failed_ = !is_success(value);
    if (name == "status" && depth_ == 4) succeeded_ = is_success(value);
    if (depth_ == 5) {
      if (name == "getcontentlength") said_.size = value;
      if (name == "getlastmodified") said_.modified = value;
      if (name == "getetag") said_.etag = value;
    }
    if (name == "resourcetype") in_type_ = false;
    if (name == "propstat" && depth_ == 3 && succeeded_) facts_.add(std::move(said_));
    if (name == "response" && depth_ == 2) add_entry();
  }

  void add_entry() {
    if (is_the_directory()) {
      is_file_ = is_file_ || (!failed_ && !facts_.collection);
      return;
    }
    std::optional<NamedChild> child = links_.child(href_);
    if (failed_) return entries_.skip();
    if (!child) return entries_.refuse(href_);
    const EntryType type = facts_.collection ? EntryType::kDirectory : EntryType::kFile;
    ListedEntry* entry = entries_.add(std::move(child->name), type);
    if (entry == nullptr) return;
    entry->mtime = parse_http_date(facts_.modified);
    if (type == EntryType::kDirectory) return;
    entry->size = parse_listed_size(facts_.size);
    entry->etag = facts_.etag;
  }

  // The first response of most, without its '/' of some.
  bool is_the_directory() const {
    const Result<Url> target = page_.resolve(href_);
    if (href_.empty() || !target || !target->same_origin(page_)) return false;
    const auto plain = [](const Url& url) {
      const std::string path = url.as_directory().path();
      return decode_segment(path).value_or(path);
    };
    return plain(*target) == plain(page_);
  }

  const Url page_;
  const ChildLinks links_;
  XmlReader reader_;
  EntryList entries_;
  bool is_multistatus_ = false;
  bool is_file_ = false;
  int depth_ = 0;
  std::string text_;  // of the innermost element
  bool in_type_ = false;
  // The response and its propstat that are open.
  std::string href_;
  bool failed_ = false;
  Facts facts_, said_;
  bool succeeded_ = false;
};

}  // namespace

std::unique_ptr<ListingParser> make_webdav_listing_parser(const Url& page) {
  return std::make_unique<WebdavListingParser>(page);
}

}  // namespace wormhole
