// XML documents as events: elements begin, have text, and end. The door to libxml2 for XML; HTML has its own
// (listing_html.cc). A document type declaration is refused, so no entity can be defined, and nothing is ever loaded.
//
// Thread: one reader belongs to one thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/error.h"

namespace wormhole {

class XmlHandler {
 public:
  virtual ~XmlHandler() = default;
  // Local names; `space` is the namespace's URI, "" without one.
  virtual void start_element(std::string_view space, std::string_view name) = 0;
  virtual void end_element(std::string_view space, std::string_view name) = 0;
  virtual void text(std::string_view text) = 0;
};

class XmlReader {
 public:
  // The handler outlives it.
  explicit XmlReader(XmlHandler& handler);
  ~XmlReader();
  XmlReader(const XmlReader&) = delete;
  XmlReader& operator=(const XmlReader&) = delete;

  // kBadResponse when it is not well-formed (the first error ends it).
  Status feed(std::string_view bytes);
  Status finish();

 private:
  struct Parser;
  const std::unique_ptr<Parser> parser_;
};

// The local name of the element that a document begins with; "" when it is no XML.
std::string xml_root(std::string_view document);

}  // namespace wormhole
