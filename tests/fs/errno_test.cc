#include "fs/errno.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace wormhole {
namespace {

TEST(Errno, AFileThatChangedIsStale) { EXPECT_EQ(errno_of(ErrorCode::kStale), ESTALE); }

TEST(Errno, AServerThatIsSilentIsATimeout) { EXPECT_EQ(errno_of(ErrorCode::kTimedOut), ETIMEDOUT); }

TEST(Errno, AServerThatRefusesIsAPermission) {
  EXPECT_EQ(errno_of(ErrorCode::kForbidden), EACCES);
  EXPECT_EQ(errno_of(ErrorCode::kUnauthorized), EACCES);
}

TEST(Errno, ANameThatIsNotThereIsNotThere) { EXPECT_EQ(errno_of(ErrorCode::kNotFound), ENOENT); }

TEST(Errno, EverythingElseThatFailsAReadIsAnInputOutputError) {
  for (const ErrorCode code : {ErrorCode::kUnreachable, ErrorCode::kBadResponse, ErrorCode::kTls, ErrorCode::kIo,
                               ErrorCode::kCorrupt, ErrorCode::kCancelled}) {
    EXPECT_EQ(errno_of(code), EIO) << to_string(code);
  }
}

}  // namespace
}  // namespace wormhole
