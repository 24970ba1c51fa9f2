// A network that holds requests until the test answers them, and remembers what it was asked.
//
// Thread: the test's.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "net/fetcher.h"

namespace wormhole {

class HeldNetwork : public Fetcher {
 public:
  std::map<FetchId, FetchRequest> active;  // the test takes out what it has answered
  std::vector<FetchRequest> asked;
  std::vector<FetchId> cancelled, promoted;
  std::vector<std::pair<FetchId, ByteRange>> wanted;

  void fetch(FetchRequest request) override {
    asked.push_back(request);
    active[request.id] = std::move(request);
  }
  void cancel(FetchId id) override { cancelled.push_back(id); }
  void promote(FetchId id) override { promoted.push_back(id); }
  void want(FetchId id, ByteRange bytes) override { wanted.emplace_back(id, bytes); }
  void get(DocumentRequest) override {}
  LinkEstimate link() const override { return {}; }
};

}  // namespace wormhole
