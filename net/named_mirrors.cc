#include "net/named_mirrors.h"

#include <algorithm>

#include "base/log.h"

namespace wormhole {

std::vector<Url> usable_mirrors(const std::vector<std::string>& named, const Url& origin) {
  std::vector<Url> out;
  const std::string own = origin.as_directory().without_credentials().str();
  for (const std::string& text : named) {
    const auto leave_out = [](const std::string& url, std::string_view why) {
      log::warn("a mirror that the manifest names is not asked: url={} reason=\"{}\"", url, why);
    };
    const auto parsed = Url::parse(text);
    if (!parsed) {
      leave_out("?", parsed.error().message);
      continue;
    }
    const Url url = parsed->as_directory();
    const auto is_same = [&](const Url& other) { return other.str() == url.str(); };
    if (!url.user().empty() || !url.password().empty()) {
      leave_out(url.display(), "a mirror is asked without credentials");
    } else if (origin.scheme() == "https" && url.scheme() != "https") {
      leave_out(url.display(), "the tree is read over https, this is not");
    } else if (url.str() != own && std::none_of(out.begin(), out.end(), is_same)) {
      out.push_back(url);
    }
    if (out.size() == kMostNamedMirrors) break;
  }
  return out;
}

}  // namespace wormhole
