// Which version of a remote object some bytes belong to. Bytes of two versions never meet: a validator is fixed when
// an object is first read, goes out with every range as If-Range where HTTP allows it, and is compared with what
// every response says (RFC 9110, sections 8.8 and 13.1.5).
//
// Thread: values, any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace wormhole {

struct Validator {
  std::string etag;           // as sent, with quotes and a W/ prefix if weak; empty when the server sends none
  std::string last_modified;  // as sent (an IMF-fixdate); empty when the server sends none

  bool empty() const { return etag.empty() && last_modified.empty(); }
  bool etag_is_strong() const { return !etag.empty() && etag.rfind("W/", 0) != 0; }

  // What may stand in If-Range: a strong ETag, else Last-Modified; empty when neither is there (a weak ETag must
  // not be used in If-Range).
  const std::string& if_range() const { return etag_is_strong() ? etag : last_modified; }

  // True when `seen`, from a later response, says that this is a different version. Only fields that both have are
  // compared: servers leave headers out of some responses (a 206 may omit Last-Modified when If-Range was sent).
  bool contradicts(const Validator& seen) const {
    if (!etag.empty() && !seen.etag.empty()) return etag != seen.etag;
    return !last_modified.empty() && !seen.last_modified.empty() && last_modified != seen.last_modified;
  }

  bool operator==(const Validator&) const = default;
};

}  // namespace wormhole
