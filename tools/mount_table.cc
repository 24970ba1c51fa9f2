#include "tools/mount_table.h"

#include <mntent.h>
#include <sys/sysmacros.h>

#include <charconv>
#include <cstdio>
#include <fstream>
#include <memory>
#include <vector>

namespace wormhole {
namespace {

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (size_t end = 0; end != text.npos; text.remove_prefix(end == text.npos ? 0 : end + 1)) {
    end = text.find(separator);
    parts.push_back(text.substr(0, end));
  }
  return parts;
}

template <typename T>
std::optional<T> number(std::string_view text, int base = 10) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The kernel writes blanks, tabs, newlines and backslashes as three octal digits.
std::string unescape(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto code = text[i] == '\\' ? number<uint8_t>(text.substr(i + 1, 3), 8) : std::nullopt;
    out += code ? static_cast<char>(*code) : text[i];
    if (code) i += 3;
  }
  return out;
}

template <typename F>
void for_each_wormhole(F visit) {
  std::ifstream table("/proc/self/mountinfo");
  for (std::string line; std::getline(table, line);) {
    if (const auto mount = parse_mountinfo(line)) visit(*mount);
  }
}

bool is_below(const std::string& path, const std::string& directory) {
  if (directory == "/" || path == directory) return true;
  return path.size() > directory.size() && path.starts_with(directory) && path[directory.size()] == '/';
}

}  // namespace

std::optional<MountEntry> find_mount(const std::string& mountpoint) {
  const std::unique_ptr<FILE, int (*)(FILE*)> table(::setmntent("/proc/self/mounts", "r"), ::endmntent);
  std::optional<MountEntry> found;
  if (!table) return found;
  mntent entry{};
  char buffer[16384];
  while (::getmntent_r(table.get(), &entry, buffer, sizeof(buffer)) != nullptr) {
    if (mountpoint == entry.mnt_dir) found = MountEntry{entry.mnt_dir, entry.mnt_type, entry.mnt_fsname};
  }
  return found;
}

// 57 29 0:49 / /srv/data ro,nosuid - fuse.wormhole https://example.org/ ro,user_id=0,group_id=0
std::optional<WormholeMount> parse_mountinfo(std::string_view line) {
  const size_t dash = line.find(" - ");
  if (dash == line.npos) return std::nullopt;
  const auto front = split(line.substr(0, dash), ' ');
  const auto back = split(line.substr(dash + 3), ' ');
  if (front.size() < 6 || back.size() < 3 || back[0] != "fuse.wormhole") return std::nullopt;
  const auto device = split(front[2], ':');
  if (device.size() != 2) return std::nullopt;
  const auto major = number<unsigned>(device[0]), minor = number<unsigned>(device[1]);
  if (!major || !minor) return std::nullopt;
  WormholeMount mount{makedev(*major, *minor), unescape(front[4]), 0};
  constexpr std::string_view kUser = "user_id=";
  for (const std::string_view option : split(back.back(), ',')) {
    if (option.starts_with(kUser)) mount.user = number<uid_t>(option.substr(kUser.size())).value_or(0);
  }
  return mount;
}

std::optional<WormholeMount> find_wormhole(dev_t device) {
  std::optional<WormholeMount> found;
  for_each_wormhole([&](const WormholeMount& mount) {
    if (mount.device == device && !found) found = mount;
  });
  return found;
}

std::optional<WormholeMount> find_wormhole_above(const std::string& path) {
  std::optional<WormholeMount> found;
  for_each_wormhole([&](const WormholeMount& mount) {
    const bool nearer = !found || mount.mountpoint.size() >= found->mountpoint.size();
    if (is_below(path, mount.mountpoint) && nearer) found = mount;
  });
  return found;
}

}  // namespace wormhole
