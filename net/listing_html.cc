// HTML directory indexes, read by libxml2's push parser as they arrive; no document is built.
//
// The name of an entry comes from the link, never from its text: nginx and Apache cut long names in the text. What
// follows the link, up to the next one or the end of the line or row, are the entry's facts. Caddy alone gives exact
// values, as attributes beside rounded text.

#include <libxml/HTMLparser.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <unordered_set>

#include "net/entry_facts.h"
#include "net/index_signs.h"
#include "net/listing.h"
#include "net/listing_names.h"

namespace wormhole {
namespace {

// A date, a size and a type need less than 100 bytes; a description may be anything.
constexpr size_t kFactsLimit = 256;

// Elements inside each other. Indexes have about ten; libxml2 keeps a stack of them.
constexpr int kDepthLimit = 512;

std::string_view view(const xmlChar* text) { return text == nullptr ? "" : reinterpret_cast<const char*>(text); }

// The value of an attribute of a start tag; "" when it is not there.
std::string_view attribute(const xmlChar** attributes, std::string_view name) {
  for (; attributes != nullptr && *attributes != nullptr; attributes += 2) {
    if (view(attributes[0]) == name) return view(attributes[1]);
  }
  return "";
}

bool is_line(std::string_view element) { return element == "tr" || element == "li" || element == "br"; }

// Collects the entries in the order of the document. An entry is open from its link on, until its line ends.
class EntryCollector {
 public:
  explicit EntryCollector(const Url& page) : links_(page) {}

  // True when the link names a child of the directory.
  bool link(std::string_view href) {
    std::optional<NamedChild> child = links_.child(href);
    const bool again = child && open_ && listing_.entries.back().name == child->name;  // the icon, then the name
    if (again) return true;
    close();
    if (!child || !names_.insert(child->name).second) {
      ++listing_.skipped;
      return child.has_value();
    }
    ListedEntry& entry = listing_.entries.emplace_back();
    entry.name = std::move(child->name);
    entry.type = child->type;
    open_ = true;
    return true;
  }

  void text(std::string_view text) {
    if (open_) facts_ += text.substr(0, kFactsLimit - std::min(facts_.size(), kFactsLimit));
  }

  // From attributes in the entry's line; they go before what the text says.
  void exact_size(std::string_view value) {
    uint64_t size = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
    if (!value.empty() && error == std::errc() && end == value.data() + value.size()) exact_.size = size;
  }
  void exact_date(std::string_view value) {
    while (value.starts_with(' ')) value.remove_prefix(1);  // Caddy 2.6 writes one
    exact_.date = take_listed_date(value);
  }

  // The line of the open entry has ended.
  void close() {
    if (open_) add_facts(listing_.entries.back());
    open_ = false;
    facts_.clear();
    exact_ = {};
  }

  Listing take() { return std::move(listing_); }

 private:
  void add_facts(ListedEntry& entry) {
    const EntryFacts facts = read_entry_facts(facts_);
    if (const std::optional<ListedDate> date = exact_.date ? exact_.date : facts.date) {
      entry.mtime = date->seconds;
      entry.mtime_granularity = date->granularity;
    }
    if (entry.type == EntryType::kFile) entry.size = exact_.size ? exact_.size : facts.size;
    if (entry.size.value_or(0) > kLargestFile) entry.size.reset();
  }

  const ChildLinks links_;
  Listing listing_;
  std::unordered_set<std::string> names_;
  bool open_ = false;
  std::string facts_;  // text behind the link
  EntryFacts exact_;
};

class HtmlListingParser final : public ListingParser {
 public:
  explicit HtmlListingParser(const Url& page) : page_(page.display()), entries_(page) {
    static const bool once = (xmlInitParser(), true);  // it is not thread-safe
    (void)once;
    xmlSAXHandler events = {};
    events.startElement = [](void* self, const xmlChar* name, const xmlChar** attributes) {
      static_cast<HtmlListingParser*>(self)->start_element(view(name), attributes);
    };
    events.endElement = [](void* self, const xmlChar* name) {
      static_cast<HtmlListingParser*>(self)->end_element(view(name));
    };
    events.characters = [](void* self, const xmlChar* text, int length) {
      static_cast<HtmlListingParser*>(self)->text({reinterpret_cast<const char*>(text), static_cast<size_t>(length)});
    };
    events.ignorableWhitespace = events.characters;
    events.cdataBlock = [](void*, const xmlChar*, int) {};  // scripts and styles
    // Every server encodes what is not ASCII in links. Text may be anything and is only looked at for dates.
    context_.reset(htmlCreatePushParserCtxt(&events, this, nullptr, 0, nullptr, XML_CHAR_ENCODING_UTF8));
    if (context_) {
      htmlCtxtUseOptions(context_.get(), HTML_PARSE_RECOVER | HTML_PARSE_NONET | HTML_PARSE_NOERROR |
                                             HTML_PARSE_NOWARNING | HTML_PARSE_IGNORE_ENC);
    }
  }

  Status feed(std::string_view bytes) override {
    constexpr size_t kPiece = 1 << 20;  // libxml2 takes an int, and copies what it is given
    signs_.bytes(bytes);
    for (size_t at = 0; at < bytes.size() && !too_deep_; at += kPiece) {
      parse(bytes.substr(at, kPiece), /*last=*/false);
    }
    if (!signs_.may_become_index() || too_deep_) return no_listing();
    return {};
  }

  Result<Listing> finish() override {
    signs_.document_ended();
    parse("", /*last=*/true);
    entries_.close();
    if (!signs_.is_index() || too_deep_) return no_listing();
    if (!signs_.is_complete()) return fail(ErrorCode::kBadResponse, "the listing of {} is cut short", page_);
    return entries_.take();
  }

 private:
  struct ContextDeleter {
    void operator()(htmlParserCtxtPtr context) const {
      xmlFreeDoc(context->myDoc);
      htmlFreeParserCtxt(context);
    }
  };

  void parse(std::string_view piece, bool last) {
    if (context_) htmlParseChunk(context_.get(), piece.data(), static_cast<int>(piece.size()), last ? 1 : 0);
  }

  void start_element(std::string_view name, const xmlChar** attributes) {
    too_deep_ = too_deep_ || ++depth_ > kDepthLimit;
    if (too_deep_) return;
    signs_.start_element(name);
    if (is_line(name)) entries_.close();
    if (name == "pre") in_pre_ = true;
    if (name == "table" && attribute(attributes, "aria-describedby") == "summary") signs_.caddy_table();
    if (name == "a") start_link(attribute(attributes, "href"));
    if (name == "td" && signs_.is_caddy()) {
      entries_.exact_size(attribute(attributes, "data-order"));  // 2.6
      entries_.exact_size(attribute(attributes, "data-size"));   // 2.7
    }
    if (name == "time") entries_.exact_date(attribute(attributes, "datetime"));
    if (!in_link_) entries_.text(" ");  // two cells are two words
  }

  void end_element(std::string_view name) {
    --depth_;
    if (name == "a") in_link_ = false;
    if (name == "pre") in_pre_ = false;
    if (is_line(name) || name == "pre" || name == "table") entries_.close();
    signs_.end_element(name);
  }

  void text(std::string_view text) {
    signs_.text(text, in_link_);
    if (in_link_) return;
    const size_t line_end = in_pre_ ? text.find('\n') : text.npos;
    entries_.text(text.substr(0, line_end));
    if (line_end != text.npos) entries_.close();
  }

  void start_link(std::string_view href) {
    in_link_ = true;
    if (!href.empty() && entries_.link(href)) signs_.entry();
  }

  tl::unexpected<Error> no_listing() const {
    return fail(ErrorCode::kBadResponse, "no directory listing: {} is an ordinary HTML page", page_);
  }

  const std::string page_;
  std::unique_ptr<htmlParserCtxt, ContextDeleter> context_;
  IndexSigns signs_;
  EntryCollector entries_;
  int depth_ = 0;
  bool too_deep_ = false;
  bool in_link_ = false;
  bool in_pre_ = false;
};

}  // namespace

std::unique_ptr<ListingParser> make_html_listing_parser(const Url& page) {
  return std::make_unique<HtmlListingParser>(page);
}

}  // namespace wormhole
