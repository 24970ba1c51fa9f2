#include "fs/open_file.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

constexpr int32_t kId = 7;

CompleteFileRef complete_file(CompleteFile::Kind kind = CompleteFile::Kind::kOwnFile) {
  return std::make_shared<CompleteFile>(std::make_shared<FileDescriptor>(), kind, 0, 100);
}

int32_t gives_id(int) { return kId; }
int32_t refuses(int) { return 0; }
int32_t must_not_ask(int) {
  ADD_FAILURE() << "the kernel was asked";
  return 0;
}

TEST(CompleteFile, NobodyEntersWhatIsRevoked) {
  const CompleteFileRef file = complete_file();
  EXPECT_TRUE(file->enter());
  file->revoke();
  EXPECT_FALSE(file->is_unread());
  EXPECT_FALSE(file->enter());
  file->leave();
  EXPECT_TRUE(file->is_unread());
}

TEST(OpenFile, IsReadThroughTheKernelsPageCacheUntilAllOfItIsThere) {
  Passthrough passthrough;
  OpenFile file(2, 100);
  EXPECT_EQ(file.complete(), nullptr);
  EXPECT_EQ(file.decide(passthrough, must_not_ask), 0);
}

TEST(OpenFile, IsPassedThroughWhenAllOfItIsThere) {
  Passthrough passthrough;
  OpenFile file(2, 100);
  const CompleteFileRef complete = complete_file();
  file.publish(complete);
  EXPECT_EQ(file.decide(passthrough, gives_id), kId);
  EXPECT_EQ(file.decide(passthrough, must_not_ask), kId) << "the second handle has the same";
  complete->revoke();
  EXPECT_FALSE(complete->is_unread()) << "the kernel reads it";
  EXPECT_EQ(file.take_backing(), kId);
  EXPECT_TRUE(complete->is_unread());
  EXPECT_EQ(file.take_backing(), 0);
}

TEST(OpenFile, LaterHandlesFollowTheFirst) {
  Passthrough passthrough;
  OpenFile file(2, 100);
  EXPECT_EQ(file.decide(passthrough, must_not_ask), 0);
  file.publish(complete_file());
  EXPECT_EQ(file.decide(passthrough, must_not_ask), 0);
}

TEST(OpenFile, IsNotPassedThroughWhatIsRevokedOrRefusedOrPartOfAnotherFile) {
  Passthrough passthrough;
  OpenFile revoked(2, 100);
  const CompleteFileRef gone = complete_file();
  revoked.publish(gone);
  gone->revoke();
  EXPECT_EQ(revoked.decide(passthrough, must_not_ask), 0);

  OpenFile refused(3, 100);
  const CompleteFileRef complete = complete_file();
  refused.publish(complete);
  EXPECT_EQ(refused.decide(passthrough, refuses), 0);
  complete->revoke();
  EXPECT_TRUE(complete->is_unread());

  OpenFile part(4, 100);
  part.publish(complete_file(CompleteFile::Kind::kInPack));
  EXPECT_EQ(part.decide(passthrough, must_not_ask), 0);

  passthrough.refuse("for a reason");
  passthrough.refuse("and another");
  EXPECT_EQ(passthrough.state(), "off: for a reason");
  OpenFile off(5, 100);
  off.publish(complete_file());
  EXPECT_EQ(off.decide(passthrough, must_not_ask), 0);
}

TEST(OpenFile, OneThatWasRevokedIsFollowedByAnother) {
  OpenFile file(2, 100);
  const CompleteFileRef first = complete_file(), second = complete_file();
  file.publish(first);
  first->revoke();
  EXPECT_FALSE(file.complete()->enter());
  file.publish(second);
  EXPECT_TRUE(file.complete()->enter());
}

TEST(OpenFiles, HandlesOfOneInodeShareUntilTheLastIsClosed) {
  OpenFiles files;
  const OpenFileRef a = files.open(2, 100), b = files.open(2, 100), other = files.open(3, 100);
  EXPECT_EQ(a, b);
  EXPECT_NE(a, other);
  EXPECT_EQ(files.close(*a), nullptr);
  EXPECT_EQ(files.close(*b), a);
  EXPECT_NE(files.open(2, 100), a);
}

}  // namespace
}  // namespace wormhole
