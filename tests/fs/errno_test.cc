#include "fs/errno.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace wormhole {
namespace {

TEST(Errno, WhatAReaderCanActOnHasItsOwn) {
  EXPECT_EQ(errno_of(ErrorCode::kNotFound), ENOENT);
  EXPECT_EQ(errno_of(ErrorCode::kForbidden), EACCES);
  EXPECT_EQ(errno_of(ErrorCode::kUnauthorized), EACCES);
  EXPECT_EQ(errno_of(ErrorCode::kStale), ESTALE);
  EXPECT_EQ(errno_of(ErrorCode::kTimedOut), ETIMEDOUT);
}

TEST(Errno, TheRestIsAnInputOutputError) {
  for (const ErrorCode code :
       {ErrorCode::kUnreachable, ErrorCode::kBadResponse, ErrorCode::kNoRanges, ErrorCode::kTls, ErrorCode::kIo,
        ErrorCode::kNoSpace, ErrorCode::kCorrupt, ErrorCode::kFormat, ErrorCode::kCancelled}) {
    EXPECT_EQ(errno_of(code), EIO) << to_string(code);
  }
}

TEST(Errno, NoErrorIsSuccess) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::kCancelled); ++code) {
    EXPECT_GT(errno_of(static_cast<ErrorCode>(code)), 0);
  }
}

}  // namespace
}  // namespace wormhole
