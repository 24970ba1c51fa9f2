#include "fs/transport.h"

#include <fstream>

namespace wormhole {
namespace {

Status kernel_offers_uring(const std::string& setting) {
  std::ifstream file(setting);
  char value = 0;
  if (!(file >> value)) return fail(ErrorCode::kInvalid, "this kernel has no FUSE over io_uring (6.14 has)");
  if (value == 'Y' || value == '1') return {};
  return fail(ErrorCode::kInvalid, "FUSE over io_uring is off in this kernel; root turns it on: echo Y > {}", setting);
}

}  // namespace

Result<FuseTransportState> choose_transport(FuseTransport wish, const std::string& setting) {
  if (wish == FuseTransport::kDev) return FuseTransportState{false, "as the options say"};
  const Status offered = kernel_offers_uring(setting);
  if (offered) return FuseTransportState{true, {}};
  if (wish == FuseTransport::kUring) return fail(ErrorCode::kInvalid, "transport=uring: {}", offered.error().message);
  return FuseTransportState{false, offered.error().message};
}

}  // namespace wormhole
