#include "net/xml_events.h"

#include <libxml/parser.h>

namespace wormhole {
namespace {

std::string_view view(const xmlChar* text) { return text == nullptr ? "" : reinterpret_cast<const char*>(text); }

// Elements inside each other; the formats here have six.
constexpr int kDepthLimit = 64;

}  // namespace

struct XmlReader::Parser {
  struct ContextDeleter {
    void operator()(xmlParserCtxtPtr c) const {
      xmlFreeDoc(c->myDoc);
      xmlFreeParserCtxt(c);
    }
  };

  void refuse(std::string why) {
    if (refused.empty()) refused = std::move(why);
    xmlStopParser(context.get());
  }

  Status parse(std::string_view piece, bool last) {
    if (!context) return fail(ErrorCode::kBadResponse, "no XML parser");
    if (refused.empty() && xmlParseChunk(context.get(), piece.data(), static_cast<int>(piece.size()), last) != 0) {
      const xmlError* error = xmlCtxtGetLastError(context.get());
      std::string text = error != nullptr && error->message != nullptr ? error->message : "unknown";
      while (!text.empty() && text.back() == '\n') text.pop_back();
      if (refused.empty()) refused = fmt::format("line {}: {}", error != nullptr ? error->line : 0, text);
    }
    if (!refused.empty()) return fail(ErrorCode::kBadResponse, "no well-formed XML: {}", refused);
    return {};
  }

  XmlHandler* handler = nullptr;
  std::unique_ptr<xmlParserCtxt, ContextDeleter> context;
  int depth = 0;
  std::string refused;  // why
};

XmlReader::XmlReader(XmlHandler& handler) : parser_(std::make_unique<Parser>()) {
  static const bool once = (xmlInitParser(), true);  // it is not thread-safe
  (void)once;
  parser_->handler = &handler;
  xmlSAXHandler events = {};
  events.initialized = XML_SAX2_MAGIC;
  events.startElementNs = [](void* self, const xmlChar* name, const xmlChar*, const xmlChar* space, int,
                             const xmlChar**, int, int, const xmlChar**) {
    auto* p = static_cast<Parser*>(self);
    if (++p->depth > kDepthLimit) return p->refuse("too many elements inside each other");
    if (p->refused.empty()) p->handler->start_element(view(space), view(name));
  };
  events.endElementNs = [](void* self, const xmlChar* name, const xmlChar*, const xmlChar* space) {
    auto* p = static_cast<Parser*>(self);
    --p->depth;
    if (p->refused.empty()) p->handler->end_element(view(space), view(name));
  };
  events.characters = [](void* self, const xmlChar* text, int length) {
    auto* p = static_cast<Parser*>(self);
    if (p->refused.empty()) p->handler->text({reinterpret_cast<const char*>(text), static_cast<size_t>(length)});
  };
  events.ignorableWhitespace = events.characters;
  events.cdataBlock = events.characters;
  events.internalSubset = [](void* self, const xmlChar*, const xmlChar*, const xmlChar*) {
    static_cast<Parser*>(self)->refuse("it has a document type declaration");
  };
  parser_->context.reset(xmlCreatePushParserCtxt(&events, parser_.get(), nullptr, 0, nullptr));
  if (parser_->context)
    xmlCtxtUseOptions(parser_->context.get(), XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
}

XmlReader::~XmlReader() = default;

Status XmlReader::feed(std::string_view bytes) {
  constexpr size_t kPiece = 1 << 20;  // libxml2 takes an int, and copies what it is given
  for (size_t at = 0; at < bytes.size(); at += kPiece) {
    if (auto ok = parser_->parse(bytes.substr(at, kPiece), /*last=*/false); !ok) return ok;
  }
  return {};
}

Status XmlReader::finish() { return parser_->parse("", /*last=*/true); }

std::string xml_root(std::string_view document) {
  struct Root final : XmlHandler {
    void start_element(std::string_view, std::string_view name) override {
      if (found.empty()) found = name;
    }
    void end_element(std::string_view, std::string_view) override {}
    void text(std::string_view) override {}
    std::string found;
  } root;
  // A declaration, comments, and the tag with its namespaces.
  constexpr size_t kHead = 4096;
  XmlReader reader(root);
  (void)reader.feed(document.substr(0, kHead));
  return root.found;
}

}  // namespace wormhole
