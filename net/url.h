// Where something remote is. Parsing and joining are libcurl's (the same rules that later fetch the URL); here is only
// what a file system needs on top: names to path segments and back, and a form without secrets for logs.
//
// Thread: values, any.
#pragma once

#include <string>
#include <string_view>

#include "base/error.h"

struct Curl_URL;  // libcurl's handle of a parsed URL

namespace wormhole {

class Url {
 public:
  // An absolute http:// or https:// URL. kInvalid for anything else: the message names the part that is wrong and, for
  // a missing scheme, proposes the URL with one.
  static Result<Url> parse(std::string_view text);

  // The URL as it goes to libcurl, normalised, path percent-encoded; with credentials if it was given some.
  const std::string& str() const { return text_; }
  // For logs, messages and the mount table: user and password are left out.
  const std::string& display() const { return display_; }

  // User and password of the URL, decoded; empty when it has none.
  const std::string& user() const { return user_; }
  const std::string& password() const { return password_; }
  // The same place without them: what the program carries around, logs and keeps. The fetcher knows them apart.
  Url without_credentials() const;

  const std::string& scheme() const { return scheme_; }
  const std::string& host() const { return host_; }
  const std::string& port() const { return port_; }    // never empty
  const std::string& path() const { return path_; }    // encoded, begins with '/'
  const std::string& query() const { return query_; }  // encoded, without '?'; "" when there is none
  bool is_directory() const { return path_.ends_with('/'); }

  // The last path segment, decoded; "" for a directory's URL.
  std::string file_name() const;
  // This URL with '/' at the end of its path. Query and fragment are dropped.
  Url as_directory() const;
  // The directory that holds what this URL names: "/a/b" and "/a/b/" -> "/a/".
  Url parent() const;
  // The child `name` (raw bytes, one segment) of this directory's URL; with '/' behind it for a directory.
  Url child(std::string_view name, bool directory) const;
  // What `reference` (an href, absolute or relative) means on this page.
  Result<Url> resolve(std::string_view reference) const;
  // True when scheme, host and port are the same.
  bool same_origin(const Url& other) const;

 private:
  static Result<Url> from_handle(Curl_URL* handle);  // changes the handle
  Url with_path(std::string path) const;             // drops the query

  std::string text_, display_, scheme_, host_, port_, path_, query_, user_, password_;
};

// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3), so that any name is one path segment.
std::string encode_segment(std::string_view name);
// kInvalid when an escape is malformed. "%2F" and "%00" decode to bytes that no name may have: callers check.
Result<std::string> decode_segment(std::string_view segment);

}  // namespace wormhole
