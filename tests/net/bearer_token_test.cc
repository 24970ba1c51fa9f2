#include "net/bearer_token.h"

#include <gtest/gtest.h>

namespace wormhole {
namespace {

TEST(BearerToken, IsTakenInTheFormOfTheStandard) {
  EXPECT_TRUE(is_authorized("Bearer t0ken", "t0ken"));
  EXPECT_TRUE(is_authorized("bearer t0ken", "t0ken")) << "schemes have no case";
  EXPECT_TRUE(is_authorized("Bearer   t0ken", "t0ken")) << "1*SP";
}

TEST(BearerToken, NothingElseIsTaken) {
  for (const char* header : {"", "Bearer", "Bearer ", "t0ken", "Basic t0ken", "Bearert0ken", "Bearer T0KEN",
                             "Bearer t0ke", "Bearer t0kenx", "Bearer t0ken ", "Bearer xt0ken", "Bearer\tt0ken"}) {
    EXPECT_FALSE(is_authorized(header, "t0ken")) << header;
  }
  EXPECT_FALSE(is_authorized("Bearer ", ""));
  EXPECT_FALSE(is_authorized("Bearer x", ""));
}

}  // namespace
}  // namespace wormhole
