#include "tools/survey.h"

#include <algorithm>
#include <cstring>

#include "tools/control.h"

namespace wormhole {

bool take_survey(const MountedPath& place, const SurveyObserver& observer, Survey* survey) {
  const auto count = [&](const std::vector<WalkedFile>& files) {
    nlohmann::json numbers = nlohmann::json::array();
    for (const WalkedFile& file : files) numbers.push_back(file.ino);
    const auto answer = ask_mount(place.daemon, {{"do", "cached"}, {"files", numbers}});
    if (!answer) {
      observer.failed(place.path + ": " + answer.error().message);
      return false;
    }
    const auto cached = answer->value("cached", std::vector<uint64_t>{});
    const auto pinned = answer->value("pinned", std::vector<bool>{});
    if (cached.size() != files.size() || pinned.size() != files.size()) {
      observer.failed(place.path + ": the daemon is of another version");
      return false;
    }
    for (size_t i = 0; i < files.size(); ++i) {
      const uint64_t there = std::min(cached[i], files[i].size);
      ++survey->files;
      survey->bytes += files[i].size;
      survey->cached_bytes += there;
      if (there == files[i].size) {
        ++survey->complete;
      } else if (there > 0) {
        ++survey->partial;
      }
      if (pinned[i]) {
        ++survey->pinned_files;
        survey->pinned_bytes += there;
      }
    }
    return !observer.batch || observer.batch(files, cached);
  };
  return walk_in_batches(Walk::Sizes::kExact, place.path, count, [&](const std::string& path, int error) {
    observer.failed(path + ": " + std::strerror(error));
  });
}

}  // namespace wormhole
