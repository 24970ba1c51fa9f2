#include "tools/remote_tree.h"

#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "base/mailbox.h"
#include "manifest/head.h"
#include "net/remote.h"

namespace wormhole {
namespace {

// Requests under way: enough for the wire, and no more than a browser's tabs would make.
constexpr size_t kRequests = 32;

// Directories that have come and are not in the manifest yet.
constexpr size_t kDirectoriesAhead = 256;

constexpr Duration kPatience = std::chrono::seconds(60);
constexpr Duration kPoll = std::chrono::milliseconds(50);

// A server that leads in circles does so without an end.
constexpr size_t kMostDepth = 512;

struct RemoteDirectory {
  std::string path;  // below the root; "" is the root
  Url url;
  size_t depth = 0;
  std::vector<ListedEntry> entries;
  std::map<size_t, std::string> unsized;  // entries that were refused when they were asked for their size
  size_t awaited = 1;                     // answers
  Status status;
};

class RemoteWalk {
 public:
  RemoteWalk(Fetcher& fetcher, ScanVisitor& visitor) : fetcher_(fetcher), visitor_(visitor) {}
  // Whoever is asked answers into the mailbox, which outlives this.
  ~RemoteWalk() { mailbox_->close(); }

  Status run(const Url& root) {
    announce("", root, 0);
    return directory("", nullptr);
  }

 private:
  // Names are joined by NUL, which sorts before all others: the order of the keys is that of the walk.
  static std::string key_of(std::string path) {
    std::ranges::replace(path, '/', '\0');
    return path;
  }
  static std::string child_path(const std::string& path, const std::string& name) {
    return path.empty() ? name : path + "/" + name;
  }

  void announce(const std::string& path, const Url& url, size_t depth) {
    auto made = std::make_shared<RemoteDirectory>(RemoteDirectory{.path = path, .url = url, .depth = depth});
    const std::string key = key_of(path);
    known_[key] = made;
    waiting_[key].push_back({made, kListing});
  }

  // --- requests ---

  static constexpr size_t kListing = SIZE_MAX;
  struct Request {
    std::shared_ptr<RemoteDirectory> directory;
    size_t entry;  // whose size is asked for, or kListing
  };

  void start_requests(const RemoteDirectory& needed) {
    while (under_way_ < kRequests && !waiting_.empty()) {
      auto& [key, requests] = *waiting_.begin();
      const Request next = requests.back();
      if (next.entry == kListing && next.directory.get() != &needed && come_ >= kDirectoriesAhead) return;
      requests.pop_back();
      if (requests.empty()) waiting_.erase(waiting_.begin());
      ++under_way_;
      if (next.entry == kListing) ++come_;
      DocumentRequest request;
      const Url& url = next.directory->url;
      request.head_only = next.entry != kListing;
      request.url = request.head_only ? url.child(next.directory->entries[next.entry].name, false).str() : url.str();
      request.patience = kPatience;
      request.done = [mailbox = mailbox_, this, next](Result<Document> document) {
        mailbox->post([this, next, box = std::make_unique<Result<Document>>(std::move(document))] {
          --under_way_;
          answered(next, *box);
        });
      };
      fetcher_.get(std::move(request));
    }
  }

  void answered(const Request& request, const Result<Document>& document) {
    RemoteDirectory& directory = *request.directory;
    if (!document && server_did_not_speak(document.error().code)) {
      directory.status = broken_ = fail(document.error());
    } else if (request.entry == kListing) {
      take_listing(request.directory, document);
    } else {
      ListedEntry& entry = directory.entries[request.entry];
      const auto file = document ? file_of(*document) : Result<RemoteFile>(fail(document.error()));
      if (file) {
        entry.size = file->size;
        if (file->mtime) entry.mtime = file->mtime;
      } else {
        directory.unsized[request.entry] = file.error().message;
      }
    }
    --directory.awaited;
  }

  void take_listing(const std::shared_ptr<RemoteDirectory>& directory, const Result<Document>& document) {
    auto listing = document ? listing_of(*document) : Result<Listing>(fail(document.error()));
    if (!listing) {
      directory->status = fail(listing.error());
      return;
    }
    directory->entries = std::move(listing->entries);
    std::ranges::sort(directory->entries, {}, &ListedEntry::name);
    for (size_t i = 0; i < directory->entries.size(); ++i) {
      const ListedEntry& entry = directory->entries[i];
      if (entry.type == EntryType::kDirectory) {
        if (directory->depth < kMostDepth && !is_manifest(*directory, entry))
          announce(child_path(directory->path, entry.name), directory->url.child(entry.name, true),
                   directory->depth + 1);
      } else if (!entry.size) {
        waiting_[key_of(directory->path)].push_back({directory, i});
        ++directory->awaited;
      }
    }
  }

  static bool is_manifest(const RemoteDirectory& directory, const ListedEntry& entry) {
    return directory.path.empty() && entry.name == kManifestDirectory;
  }

  // --- in order ---

  Status wait_for(const RemoteDirectory& needed) {
    while (needed.awaited > 0) {
      if (!visitor_.goes_on(progress_)) return fail(ErrorCode::kCancelled, "interrupted");
      if (!broken_) return broken_;
      start_requests(needed);
      mailbox_->wait_until(clock_.now() + kPoll);
      std::vector<Task> answers;
      mailbox_->drain(answers);
      for (Task& answer : answers) answer();
    }
    return broken_;
  }

  // `listed`: what its parent says of it.
  Status directory(const std::string& path, const ListedEntry* listed) {
    const std::shared_ptr<RemoteDirectory> here = std::move(known_.extract(key_of(path)).mapped());
    if (Status came = wait_for(*here); !came) return came;
    --come_;
    if (!here->status) return listed == nullptr ? here->status : visitor_.left_out(path, here->status.error().message);
    ManifestEntry self;
    self.type = ManifestEntry::Type::kDirectory;
    self.mode = 0755;
    if (listed != nullptr) {
      self.name = listed->name;
      self.mtime = listed->mtime.value_or(0);
    }
    if (Status begun = visitor_.begin_directory(self, path); !begun) return begun;
    for (size_t i = 0; i < here->entries.size(); ++i) {
      if (Status put = entry(*here, i); !put) return put;
    }
    return visitor_.end_directory();
  }

  Status entry(const RemoteDirectory& here, size_t i) {
    const ListedEntry& listed = here.entries[i];
    const std::string path = child_path(here.path, listed.name);
    if (listed.type == EntryType::kDirectory) {
      if (is_manifest(here, listed)) return {};
      if (here.depth == kMostDepth) return visitor_.left_out(path, "it lies too deep");
      return directory(path, &listed);
    }
    if (!listed.size) return visitor_.left_out(path, here.unsized.at(i));
    ManifestEntry file;
    file.name = listed.name;
    file.mode = 0644;
    file.mtime = listed.mtime.value_or(0);
    file.size = *listed.size;
    ++progress_.files;
    progress_.bytes += file.size;
    return visitor_.entry(std::move(file), {}, path);
  }

  Fetcher& fetcher_;
  ScanVisitor& visitor_;
  const SystemClock clock_;
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  std::map<std::string, std::shared_ptr<RemoteDirectory>> known_;  // not in the manifest yet, by key
  std::map<std::string, std::vector<Request>> waiting_;            // for their turn, by the directory's key
  size_t under_way_ = 0;
  size_t come_ = 0;  // directories that were asked for and are not in the manifest yet
  Status broken_;
  ScanProgress progress_;
};

}  // namespace

Status walk_remote_tree(Fetcher& fetcher, const Url& root, ScanVisitor& visitor) {
  return RemoteWalk(fetcher, visitor).run(root);
}

}  // namespace wormhole
