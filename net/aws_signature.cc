#include "net/aws_signature.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "net/sha256.h"

namespace wormhole {
namespace {

std::string hex_of(std::string_view text) {
  Sha256 hash;
  hash.update(std::as_bytes(std::span(text)));
  return to_hex(hash.digest());
}

// Decoded and encoded again: a client may leave characters bare that the signature wants as %XX.
std::string canonical(std::string_view text) {
  const auto decoded = decode_segment(text);
  return decoded ? encode_segment(*decoded) : std::string(text);
}

std::string canonical_query(std::string_view query) {
  std::vector<std::string> parameters;
  while (!query.empty()) {
    const std::string_view one = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(one.size() + 1, query.size()));
    const size_t equals = one.find('=');
    const std::string_view value = equals == one.npos ? "" : one.substr(equals + 1);
    if (!one.empty()) parameters.push_back(canonical(one.substr(0, equals)) + "=" + canonical(value));
  }
  std::sort(parameters.begin(), parameters.end());
  return fmt::format("{}", fmt::join(parameters, "&"));
}

// As the Host header has it.
std::string host_of(const Url& url) {
  const bool usual = url.port() == (url.scheme() == "https" ? "443" : "80");
  return usual ? url.host() : url.host() + ":" + url.port();
}

std::string_view text_of(const Sha256Digest& digest) {
  return {reinterpret_cast<const char*>(digest.data()), digest.size()};
}

}  // namespace

std::vector<std::string> aws_signature(const std::string& method, const Url& url, const AwsKeys& keys,
                                       const std::string& region, int64_t now) {
  const time_t seconds = now;
  tm utc{};
  ::gmtime_r(&seconds, &utc);
  char time[] = "20261121T025701Z";
  std::strftime(time, sizeof(time), "%Y%m%dT%H%M%SZ", &utc);
  const std::string day(time, 8);
  const std::string no_body = hex_of("");

  std::string names = "host;x-amz-content-sha256;x-amz-date";
  std::string lines = fmt::format("host:{}\nx-amz-content-sha256:{}\nx-amz-date:{}\n", host_of(url), no_body, time);
  if (!keys.session_token.empty()) {
    names += ";x-amz-security-token";
    lines += fmt::format("x-amz-security-token:{}\n", keys.session_token);
  }
  const std::string request =
      fmt::format("{}\n{}\n{}\n{}\n{}\n{}", method, url.path(), canonical_query(url.query()), lines, names, no_body);
  const std::string scope = fmt::format("{}/{}/s3/aws4_request", day, region);
  const std::string text = fmt::format("AWS4-HMAC-SHA256\n{}\n{}\n{}", time, scope, hex_of(request));
  Sha256Digest key = hmac_sha256("AWS4" + keys.secret, day);
  for (const std::string_view part :
       {std::string_view(region), std::string_view("s3"), std::string_view("aws4_request")})
    key = hmac_sha256(text_of(key), part);

  std::vector<std::string> headers = {
      "x-amz-content-sha256: " + no_body, fmt::format("x-amz-date: {}", time),
      fmt::format("Authorization: AWS4-HMAC-SHA256 Credential={}/{},SignedHeaders={},Signature={}", keys.id, scope,
                  names, to_hex(hmac_sha256(text_of(key), text)))};
  if (!keys.session_token.empty()) headers.push_back("x-amz-security-token: " + keys.session_token);
  return headers;
}

}  // namespace wormhole
