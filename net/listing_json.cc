// Directory indexes in JSON: an array with an object for each entry.
//
//   nginx  {"name":"a", "type":"file", "mtime":"Fri, 20 Nov 2026 02:57:01 GMT", "size":5}    type: directory, file,
//   other Caddy  {"name":"a/", "size":4096, "url":"./a/", "mod_time":"2026-11-20T02:57:01Z", "mode":420, "is_dir":true,
//           "is_symlink":false}

#include <nlohmann/json.hpp>

#include "net/dates.h"
#include "net/listing.h"

namespace wormhole {
namespace {

// Arrays and objects inside each other; the formats have two.
constexpr int kDepthLimit = 16;

// nginx writes names as they are on its disk, and JSON has to be UTF-8. A byte that is no part of UTF-8 goes through
// the JSON parser as the code point 0x10FF00 + byte, from the end of Unicode's last private area, and becomes the byte
// again in the name.
constexpr std::string_view kByteMark = "\xF4\x8F\xBC";  // what the code points 0x10FF00 to 0x10FF3F begin with
constexpr unsigned char kMarkLast = 0xBC;

// How many bytes of well-formed UTF-8 `text` begins with, 1 to 4; 0 when it begins with something else.
size_t utf8_length(std::string_view text) {
  const auto at = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0; };
  const auto continues = [&](size_t i) { return (at(i) & 0xC0) == 0x80; };
  const int first = at(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool overlong = first == 0xE0 && at(1) < 0xA0;
    const bool surrogate = first == 0xED && at(1) >= 0xA0;
    return continues(1) && continues(2) && !overlong && !surrogate ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool outside = (first == 0xF0 && at(1) < 0x90) || (first == 0xF4 && at(1) >= 0x90);
    return continues(1) && continues(2) && continues(3) && !outside ? 4 : 0;
  }
  return 0;
}

// The code points 0x10FF00 to 0x10FFFF in UTF-8: F4 8F BC..BF 80..BF.
void append_marked(std::string& out, unsigned char byte) {
  out += kByteMark.substr(0, 2);
  out += static_cast<char>(kMarkLast + (byte >> 6));
  out += static_cast<char>(0x80 | (byte & 0x3F));
}

// Nothing when it is UTF-8 already.
std::optional<std::string> with_marks(std::string_view text) {
  std::optional<std::string> out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text.substr(i));
    if (length == 0 && !out) out.emplace(text.substr(0, i));
    if (length == 0) append_marked(*out, static_cast<unsigned char>(text[i]));
    if (length > 0 && out) *out += text.substr(i, length);
    i += std::max<size_t>(length, 1);
  }
  return out;
}

std::string without_marks(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const bool mark = text.substr(i, 2) == kByteMark.substr(0, 2) && i + 3 < text.size() &&
                      static_cast<unsigned char>(text[i + 2]) >= kMarkLast;
    if (!mark) {
      out += text[i++];
      continue;
    }
    out += static_cast<char>(((static_cast<unsigned char>(text[i + 2]) - kMarkLast) << 6) | (text[i + 3] & 0x3F));
    i += 4;
  }
  return out;
}

class JsonEvents final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit JsonEvents(bool has_marks) : has_marks_(has_marks) {}

  bool null() override { return depth_ > 0; }
  bool boolean(bool value) override {
    if (is_fact("is_dir")) entry_.is_directory = value;
    if (is_fact("is_symlink")) entry_.is_link = value;
    return depth_ > 0;
  }
  bool number_integer(number_integer_t) override { return depth_ > 0; }  // a negative one
  bool number_unsigned(number_unsigned_t value) override {
    if (is_fact("size") && value <= kLargestFile) entry_.size = value;
    return depth_ > 0;
  }
  bool number_float(number_float_t, const string_t&) override { return depth_ > 0; }
  bool string(string_t& value) override {
    if (is_fact("name")) entry_.name = has_marks_ ? without_marks(value) : value;
    if (is_fact("type")) {
      entry_.is_directory = value == "directory";
      entry_.is_other = value != "directory" && value != "file";
    }
    if (is_fact("mtime")) entry_.mtime = parse_http_date(value);
    if (is_fact("mod_time")) entry_.mtime = parse_rfc3339(value);
    return depth_ > 0;
  }
  bool binary(binary_t&) override { return false; }
  bool start_array(std::size_t) override { return ++depth_ <= kDepthLimit; }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool start_object(std::size_t) override {
    ++depth_;
    if (depth_ == 2) entry_ = {};
    key_.clear();
    return depth_ > 1 && depth_ <= kDepthLimit;
  }
  bool key(string_t& key) override {
    if (depth_ == 2) key_ = std::move(key);
    return true;
  }
  bool end_object() override {
    const bool understood = depth_ != 2 || add_entry();
    --depth_;
    return understood;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    error_ = fmt::format("no JSON from byte {} on", position);
    return false;
  }

  const std::string& error() const { return error_; }
  Listing take() { return entries_.take(); }

 private:
  struct Entry {
    std::optional<std::string> name;
    std::optional<bool> is_directory;
    bool is_other = false;
    bool is_link = false;
    std::optional<uint64_t> size;
    std::optional<int64_t> mtime;
  };

  bool is_fact(std::string_view name) const { return depth_ == 2 && key_ == name; }

  // False when it is something else than an entry.
  bool add_entry() {
    if (!entry_.name || !entry_.is_directory) return false;
    if (entry_.is_other) {
      entries_.skip();
      return true;
    }
    if (*entry_.is_directory && entry_.name->ends_with('/')) entry_.name->pop_back();
    const EntryType type = *entry_.is_directory ? EntryType::kDirectory : EntryType::kFile;
    ListedEntry* listed = entries_.add(std::move(*entry_.name), type);
    if (listed == nullptr) return true;
    listed->mtime = entry_.mtime;
    // Some versions of Caddy give the size of the link itself.
    if (type == EntryType::kFile && !entry_.is_link) listed->size = entry_.size;
    return true;
  }

  const bool has_marks_;
  EntryList entries_;
  int depth_ = 0;
  std::string key_;
  Entry entry_;
  std::string error_;
};

class JsonListingParser final : public ListingParser {
 public:
  explicit JsonListingParser(const Url& page) : page_(page.display()) {}

  // The JSON parser wants it in one piece.
  Status feed(std::string_view bytes) override {
    document_ += bytes;
    return {};
  }

  Result<Listing> finish() override {
    const std::optional<std::string> marked = with_marks(document_);
    JsonEvents events(marked.has_value());
    if (nlohmann::json::sax_parse(marked ? *marked : document_, &events)) return events.take();
    return fail(ErrorCode::kBadResponse, "no directory listing: {}: {}", page_,
                events.error().empty() ? "JSON of another kind" : events.error());
  }

 private:
  const std::string page_;
  std::string document_;
};

}  // namespace

std::unique_ptr<ListingParser> make_json_listing_parser(const Url& page) {
  return std::make_unique<JsonListingParser>(page);
}

}  // namespace wormhole
