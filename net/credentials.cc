#include "net/credentials.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>

#include "base/log.h"

namespace wormhole {
namespace {

constexpr size_t kLongestFile = 64 * 1024;  // no server takes a header of that size

Result<std::string> read_file(const std::string& path, const char* option) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(error_from_errno(errno, fmt::format("{}={}", option, path)));
  std::ostringstream text;
  text << file.rdbuf();
  if (text.str().size() > kLongestFile) return fail(ErrorCode::kInvalid, "{}={}: the file is too long", option, path);
  return text.str();
}

std::string_view trim(std::string_view s) {
  constexpr std::string_view kBlank = " \t\r\n";
  const size_t first = s.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return s.substr(first, s.find_last_not_of(kBlank) - first + 1);
}

// A control character would end the header and begin another one.
bool is_printable(std::string_view s) {
  return std::none_of(s.begin(), s.end(), [](unsigned char c) { return (c < 32 && c != '\t') || c == 127; });
}

Result<std::string> read_token(const std::string& path) {
  const auto text = read_file(path, "token-file");
  if (!text) return fail(text.error());
  const std::string_view token = trim(*text);
  if (token.empty() || !is_printable(token) || token.find(' ') != std::string_view::npos)
    return fail(ErrorCode::kInvalid, "token-file={}: expected one line with the token alone", path);
  return std::string(token);
}

Result<std::vector<std::string>> read_headers(const std::string& path) {
  const auto text = read_file(path, "header-file");
  if (!text) return fail(text.error());
  std::vector<std::string> headers;
  std::istringstream lines(*text);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const std::string_view header = trim(line);
    if (header.empty() || header.front() == '#') continue;
    const size_t colon = header.find(':');
    if (colon == 0 || colon == std::string_view::npos || !is_printable(header) ||
        header.substr(0, colon).find_first_of(" \t") != std::string_view::npos)
      return fail(ErrorCode::kInvalid, "header-file={}: line {}: expected \"Name: value\"", path, number);
    headers.emplace_back(header);
  }
  return headers;
}

// The section [profile] of ~/.aws/credentials: lines "name = value"; others are of no interest here.
Result<AwsKeys> read_aws_keys(const std::string& path, const std::string& profile) {
  const auto text = read_file(path, "aws-credentials");
  if (!text) return fail(text.error());
  AwsKeys keys;
  std::istringstream lines(*text);
  bool inside = false;
  for (std::string line; std::getline(lines, line);) {
    const std::string_view setting = trim(line);
    if (setting.starts_with('[')) inside = setting == "[" + profile + "]";
    const size_t equals = setting.find('=');
    if (!inside || equals == std::string_view::npos || setting.starts_with('#')) continue;
    const std::string_view name = trim(setting.substr(0, equals)), value = trim(setting.substr(equals + 1));
    if (!is_printable(value)) continue;
    if (name == "aws_access_key_id") keys.id = value;
    if (name == "aws_secret_access_key") keys.secret = value;
    if (name == "aws_session_token") keys.session_token = value;
  }
  if (!keys.id.empty() && !keys.secret.empty()) return keys;
  return fail(ErrorCode::kInvalid, "aws-credentials={}: no aws_access_key_id and aws_secret_access_key in section [{}]",
              path, profile);
}

}  // namespace

Status Credentials::load() {
  if (!options_.aws_file.empty()) {
    auto keys = read_aws_keys(options_.aws_file, options_.aws_profile);
    if (!keys) return fail(keys.error());
    keys_ = std::move(*keys);
  }
  if (!options_.token_file.empty()) {
    auto token = read_token(options_.token_file);
    if (!token) return fail(token.error());
    token_ = std::move(*token);
  }
  if (!options_.header_file.empty()) {
    auto headers = read_headers(options_.header_file);
    if (!headers) return fail(headers.error());
    headers_ = std::move(*headers);
  }
  return {};
}

bool Credentials::reload() {
  if (!has_files()) return false;
  if (auto s = load(); !s) {
    log::warn("credentials cannot be read again, the old ones are used: {}", s.error().message);
    return false;
  }
  return true;
}

}  // namespace wormhole
