#include "net/url.h"

#include <curl/curl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>

namespace wormhole {
namespace {

struct HandleDeleter {
  void operator()(CURLU* handle) const { curl_url_cleanup(handle); }
};
using Handle = std::unique_ptr<CURLU, HandleDeleter>;

// A part of a parsed URL; "" when it has none.
std::string part_of(CURLU* handle, CURLUPart part, unsigned flags = 0) {
  char* raw = nullptr;
  if (curl_url_get(handle, part, &raw, flags) != CURLUE_OK) return "";
  std::string text = raw;
  curl_free(raw);
  return text;
}

// Spaces and bytes above ASCII are encoded instead of refused: people type them, and pages have them in links.
// Schemes that curl was built without are parsed too, so that the message can name them.
CURLUcode set_url(CURLU* handle, const std::string& text) {
  return curl_url_set(handle, CURLUPART_URL, text.c_str(),
                      CURLU_URLENCODE | CURLU_ALLOW_SPACE | CURLU_NON_SUPPORT_SCHEME);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? c + 32 : c; });
  return text;
}

bool is_http(std::string_view scheme) { return scheme == "http" || scheme == "https"; }

// What was typed, without what may be a password: for messages about text that is no URL.
std::string without_credentials(std::string_view text) {
  const size_t scheme_end = text.find("://");
  const size_t begin = scheme_end == text.npos ? 0 : scheme_end + 3;
  const size_t at = text.substr(0, text.find('/', begin)).rfind('@');
  if (at == text.npos || at < begin) return std::string(text);
  return std::string(text.substr(0, begin)) + std::string(text.substr(at + 1));
}

tl::unexpected<Error> refuse_scheme(std::string_view scheme) {
  return fail(ErrorCode::kInvalid, "{}:// is not supported: only http:// and https:// URLs are", scheme);
}

// Why `text` is no URL, for the person who typed it.
tl::unexpected<Error> explain(std::string_view text, CURLUcode code) {
  const std::string shown = without_credentials(text);
  if (text.empty()) return fail(ErrorCode::kInvalid, "the URL is empty: expected http://... or https://...");
  if (text.find("://") == text.npos) {
    const bool has_host = text.front() != '/' && text.front() != '.' && Url::parse("https://" + shown).has_value();
    return has_host ? fail(ErrorCode::kInvalid, "\"{}\" has no scheme: did you mean https://{} ?", shown, shown)
                    : fail(ErrorCode::kInvalid, "\"{}\" is not a URL: expected http://... or https://...", shown);
  }
  return fail(ErrorCode::kInvalid, "\"{}\" is not a URL: {}", shown, curl_url_strerror(code));
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_unreserved(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

}  // namespace

Result<Url> Url::parse(std::string_view text) {
  const Handle handle(curl_url());
  const CURLUcode code =
      text.find('\0') == text.npos ? set_url(handle.get(), std::string(text)) : CURLUE_MALFORMED_INPUT;
  if (code != CURLUE_OK) return explain(text, code);
  return from_handle(handle.get());
}

Result<Url> Url::from_handle(Curl_URL* handle) {
  Url url;
  url.scheme_ = part_of(handle, CURLUPART_SCHEME);
  if (!is_http(url.scheme_)) return refuse_scheme(url.scheme_);
  url.host_ = lower(part_of(handle, CURLUPART_HOST));
  url.port_ = part_of(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT);
  url.path_ = part_of(handle, CURLUPART_PATH);
  url.query_ = part_of(handle, CURLUPART_QUERY);
  url.user_ = part_of(handle, CURLUPART_USER, CURLU_URLDECODE);
  url.password_ = part_of(handle, CURLUPART_PASSWORD, CURLU_URLDECODE);

  curl_url_set(handle, CURLUPART_HOST, url.host_.c_str(), 0);
  curl_url_set(handle, CURLUPART_FRAGMENT, nullptr, 0);  // never sent
  if (url.query_.empty()) curl_url_set(handle, CURLUPART_QUERY, nullptr, 0);
  url.text_ = part_of(handle, CURLUPART_URL, CURLU_NO_DEFAULT_PORT);
  for (const CURLUPart secret : {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_OPTIONS}) {
    curl_url_set(handle, secret, nullptr, 0);
  }
  url.display_ = part_of(handle, CURLUPART_URL, CURLU_NO_DEFAULT_PORT);
  if (url.display_.empty()) return fail(ErrorCode::kInvalid, "the URL cannot be put together again");
  return url;
}

Url Url::with_path(std::string path) const {
  const size_t tail = path_.size() + (query_.empty() ? 0 : query_.size() + 1);  // "/path?query"
  Url url = *this;
  url.text_ = text_.substr(0, text_.size() - tail) + path;
  url.display_ = display_.substr(0, display_.size() - tail) + path;
  url.path_ = std::move(path);
  url.query_.clear();
  return url;
}

Url Url::without_credentials() const {
  Url url = *this;
  url.text_ = display_;
  url.user_.clear();
  url.password_.clear();
  return url;
}

std::string Url::file_name() const {
  const std::string segment = path_.substr(path_.rfind('/') + 1);
  return decode_segment(segment).value_or(segment);
}

Url Url::as_directory() const { return with_path(is_directory() ? path_ : path_ + '/'); }

Url Url::parent() const {
  if (path_ == "/") return with_path(path_);
  const size_t last = is_directory() ? path_.size() - 2 : path_.size() - 1;  // of what is not the final '/'
  return with_path(path_.substr(0, path_.rfind('/', last) + 1));
}

Url Url::child(std::string_view name, bool directory) const {
  return with_path(as_directory().path_ + encode_segment(name) + (directory ? "/" : ""));
}

Result<Url> Url::resolve(std::string_view reference) const {
  const Handle handle(curl_url());
  const bool clean = reference.find('\0') == reference.npos;
  if (!clean || set_url(handle.get(), text_) != CURLUE_OK ||
      set_url(handle.get(), std::string(reference)) != CURLUE_OK) {
    return fail(ErrorCode::kInvalid, "\"{}\" leads nowhere", reference);
  }
  return from_handle(handle.get());
}

bool Url::same_origin(const Url& other) const {
  return scheme_ == other.scheme_ && host_ == other.host_ && port_ == other.port_;
}

std::string encode_segment(std::string_view name) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(name.size());
  for (const char c : name) {
    if (is_unreserved(c)) {
      encoded += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return encoded;
}

Result<std::string> decode_segment(std::string_view segment) {
  std::string decoded;
  decoded.reserve(segment.size());
  for (size_t i = 0; i < segment.size(); ++i) {
    if (segment[i] != '%') {
      decoded += segment[i];
      continue;
    }
    const int high = i + 2 < segment.size() ? hex_value(segment[i + 1]) : -1;
    const int low = i + 2 < segment.size() ? hex_value(segment[i + 2]) : -1;
    if (high < 0 || low < 0) return fail(ErrorCode::kInvalid, "\"{}\" has a malformed %-escape", segment);
    decoded += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return decoded;
}

}  // namespace wormhole
