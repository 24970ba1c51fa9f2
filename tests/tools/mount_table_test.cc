#include "tools/mount_table.h"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

namespace wormhole {
namespace {

TEST(Mountinfo, AMountOfWormholeIsTold) {
  const auto mount = parse_mountinfo(
      "57 29 0:49 / /srv/data ro,nosuid,nodev shared:31 - fuse.wormhole https://example.org/ "
      "ro,user_id=1000,group_id=5");
  ASSERT_TRUE(mount);
  EXPECT_EQ(mount->device, makedev(0, 49));
  EXPECT_EQ(mount->mountpoint, "/srv/data");
  EXPECT_EQ(mount->user, 1000u);
}

TEST(Mountinfo, BlanksAndBackslashesInNamesAreRead) {
  const auto mount = parse_mountinfo(R"(57 29 0:49 / /srv/a\040b\134c\011d ro - fuse.wormhole http://x/ ro,user_id=0)");
  ASSERT_TRUE(mount);
  EXPECT_EQ(mount->mountpoint, "/srv/a b\\c\td");
}

TEST(Mountinfo, OtherMountsAndOtherTextAreNothing) {
  EXPECT_FALSE(parse_mountinfo("29 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw"));
  EXPECT_FALSE(parse_mountinfo("57 29 0:49 / /m ro - fuse.sshfs host: rw,user_id=0"));
  EXPECT_FALSE(parse_mountinfo("57 29 nonsense / /m ro - fuse.wormhole http://x/ ro"));
  EXPECT_FALSE(parse_mountinfo("57 29 0:49 / /m ro fuse.wormhole http://x/ ro"));
  EXPECT_FALSE(parse_mountinfo(""));
}

}  // namespace
}  // namespace wormhole
