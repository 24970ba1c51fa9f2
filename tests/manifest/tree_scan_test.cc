#include "manifest/tree_scan.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "base/file_descriptor.h"
#include "manifest/blake3.h"
#include "manifest/comparison.h"
#include "manifest/hash_tree.h"
#include "manifest/manifest_directory.h"
#include "manifest/writer.h"
#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

namespace fs = std::filesystem;
using test::TemporaryDirectory;
using test::write_text;

std::string bytes_of(uint64_t size, int seed) {
  std::string out(size, '\0');
  uint32_t x = static_cast<uint32_t>(seed) * 2654435761u + 1;
  for (char& c : out) c = static_cast<char>((x = x * 1664525u + 1013904223u) >> 24);
  return out;
}

// Writes what it visits into pages, and remembers it.
class Recorder final : public ScanVisitor {
 public:
  explicit Recorder(UnnamedFile* pages = nullptr)
      : writer_([pages](std::string_view bytes) { return pages == nullptr ? Status() : pages->append(bytes); }) {}

  std::map<std::string, ManifestEntry> entries;
  std::map<std::string, std::string> left;
  std::vector<std::string> order;
  bool stop = false;

  Status begin_directory(const ManifestEntry& d, const std::string& path) override {
    order.push_back(path + "/");
    return writer_.begin(d);
  }
  Status entry(ManifestEntry e, std::span<const std::byte> tree, const std::string& path) override {
    order.push_back(path);
    entries[path] = e;
    EXPECT_EQ(tree.empty(), !e.hash || e.size <= kBlockSize) << path;
    EXPECT_TRUE(tree.empty() || is_tree_of(e.size, *e.hash, tree)) << path;
    return writer_.add(std::move(e), tree);
  }
  Status end_directory() override { return writer_.end(); }
  Status left_out(const std::string& path, const std::string& why) override {
    left[path] = why;
    return {};
  }
  bool goes_on(const ScanProgress&) override { return !stop; }
  ManifestHead head() { return *writer_.finish(); }

 private:
  ManifestWriter writer_;
};

class TreeScanTest : public ::testing::Test {
 protected:
  TreeScanTest() { fs::create_directory(top()); }
  std::string top() const { return work_ / "tree"; }
  std::string path(const std::string& name) const { return top() + "/" + name; }
  void write(const std::string& name, const std::string& text) const {
    fs::create_directories(fs::path(path(name)).parent_path());
    write_text(path(name), text);
    age(name, 100);
  }
  // As if it had been written so many seconds ago.
  void age(const std::string& name, int seconds) const {
    timespec times[2] = {};
    times[0].tv_nsec = UTIME_OMIT;
    ::clock_gettime(CLOCK_REALTIME, &times[1]);
    times[1].tv_sec -= seconds;
    ASSERT_EQ(::utimensat(AT_FDCWD, path(name).c_str(), times, 0), 0);
  }
  Result<ScanProgress> scan(ScanVisitor& visitor, ScanOptions options = {.threads = 3}) const {
    const FileDescriptor root(::open(top().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return scan_tree(root.get(), options, visitor);
  }
  static int64_t now() {
    timespec t{};
    ::clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1'000'000'000 + t.tv_nsec;
  }
  // Writes a manifest, and opens it.
  StoredManifest index(const ScanOptions& options = {.threads = 3}) const {
    auto directory = ManifestDirectory::open_to_write(work_ / "manifest");
    EXPECT_THAT(directory, test::Succeeds());
    auto pages = directory->new_file();
    Recorder recorder(&*pages);
    const int64_t created = now();
    EXPECT_THAT(scan(recorder, options), test::Succeeds());
    ManifestHead head = recorder.head();
    head.created = created;
    head.sequence = directory->next_sequence(created);
    EXPECT_THAT(directory->publish(std::move(*pages), head, nullptr), test::Succeeds());
    return *directory->current();
  }
  std::vector<std::string> differences(const StoredManifest& manifest) const {
    std::vector<std::string> out;
    Comparison comparison(
        manifest.head, manifest.pages,
        [&](const Difference& d) { out.push_back(fmt::format("{} {}", to_string(d.kind), d.path)); },
        [](const ScanProgress&) { return true; });
    EXPECT_THAT(scan(comparison), test::Succeeds());
    return out;
  }

  TemporaryDirectory work_;
};

TEST_F(TreeScanTest, EveryFileHasItsHashWhateverItsSize) {
  for (const uint64_t size : {0u, 1u, 65'535u, 65'536u, 65'537u, 300'000u, 4u << 20, (4u << 20) + 1, 21'000'000u})
    write(std::to_string(size), bytes_of(size, 1));
  for (const int threads : {1, 4}) {
    Recorder recorder;
    const auto progress = scan(recorder, {.threads = threads});
    ASSERT_THAT(progress, test::Succeeds());
    ASSERT_EQ(recorder.entries.size(), 9u);
    for (const auto& [name, e] : recorder.entries) {
      EXPECT_EQ(e.size, std::stoull(name));
      EXPECT_EQ(e.hash, blake3(bytes_of(e.size, 1))) << name;
    }
    EXPECT_EQ(progress->files, 9u);
    EXPECT_EQ(progress->hashed_bytes, progress->bytes);
  }
}

TEST_F(TreeScanTest, TheOrderIsThatOfTheBytesOfNames) {
  for (const char* name : {"b", "a/z", "a/\xff", "a.txt", "B", "\xc3\xa4"}) write(name, "x");
  Recorder recorder;
  ASSERT_THAT(scan(recorder), test::Succeeds());
  EXPECT_EQ(recorder.order, (std::vector<std::string>{"/", "B", "a/", "a/z", "a/\xff", "a.txt", "b", "\xc3\xa4"}));
}

TEST_F(TreeScanTest, LinksAreLinksAndOtherThingsAreSkipped) {
  write("file", "x");
  fs::create_symlink("../outside", path("link"));
  ASSERT_EQ(::mkfifo(path("fifo").c_str(), 0600), 0);
  write(".wormhole/manifest", "not of the tree");
  write("below/.wormhole/x", "of the tree");
  Recorder recorder;
  ASSERT_THAT(scan(recorder), test::Succeeds());
  EXPECT_EQ(recorder.entries.at("link").target, "../outside");
  EXPECT_FALSE(recorder.entries.contains("fifo"));
  EXPECT_TRUE(recorder.left.empty());
  EXPECT_FALSE(recorder.entries.contains(".wormhole/manifest"));
  EXPECT_TRUE(recorder.entries.contains("below/.wormhole/x"));
}

TEST_F(TreeScanTest, ManyFilesComeInOrder) {
  for (int i = 0; i < 1000; ++i) write(fmt::format("d{:02}/{:04}", i % 30, i), std::to_string(i));
  Recorder recorder;
  ASSERT_THAT(scan(recorder), test::Succeeds());
  ASSERT_EQ(recorder.entries.size(), 1000u);
  for (const auto& [name, e] : recorder.entries)
    ASSERT_EQ(e.hash, blake3(std::to_string(std::stoi(name.substr(4))))) << name;
}

TEST_F(TreeScanTest, AFileThatGrowsWhileOthersAreHashedIsReadAsItIsThen) {
  write("a", std::string(64 << 20, 'x'));  // takes longer than the visitor
  write("z", bytes_of(10 << 20, 1));
  Recorder recorder;
  // It is changed in the moment between the walk and the hashing of a scan that is held by its visitor.
  struct Held final : ScanVisitor {
    Recorder& inner;
    std::function<void()> once;
    explicit Held(Recorder& r) : inner(r) {}
    Status begin_directory(const ManifestEntry& d, const std::string& p) override {
      return inner.begin_directory(d, p);
    }
    Status entry(ManifestEntry e, std::span<const std::byte> t, const std::string& p) override {
      return inner.entry(std::move(e), t, p);
    }
    Status end_directory() override { return inner.end_directory(); }
    Status left_out(const std::string& p, const std::string& w) override { return inner.left_out(p, w); }
    bool goes_on(const ScanProgress&) override {
      if (once) std::exchange(once, nullptr)();
      return true;
    }
  } held(recorder);
  const std::string grown = bytes_of((10 << 20) + 5, 2);
  held.once = [&] { write_text(path("z"), grown); };
  ASSERT_THAT(scan(held, {.threads = 1}), test::Succeeds());
  EXPECT_EQ(recorder.entries.at("z").hash, blake3(grown));
  EXPECT_EQ(recorder.entries.at("z").size, grown.size());
}

TEST_F(TreeScanTest, ItEndsWhenItIsTold) {
  write("a", "x");
  Recorder recorder;
  recorder.stop = true;
  EXPECT_THAT(scan(recorder), test::FailsWith(ErrorCode::kCancelled));
}

// --- what is known ---

TEST_F(TreeScanTest, WhatIsAsBeforeIsNotRead) {
  write("same", bytes_of(200'000, 1));
  write("small", "x");
  write("touched", "abc");
  write("d/other", "abc");
  const StoredManifest before = index();
  age("touched", 50);
  write("d/other", "abcd");
  write("new", "n");
  const KnownTree known{.head = before.head, .pages = before.pages};
  Recorder recorder;
  const auto progress = scan(recorder, {.threads = 2, .known = &known});
  ASSERT_THAT(progress, test::Succeeds());
  EXPECT_EQ(progress->hashed_files, 3u);
  EXPECT_EQ(progress->hashed_bytes, 3u + 4u + 1u);
  EXPECT_EQ(progress->files, 5u);
  EXPECT_EQ(recorder.entries.at("same").hash, blake3(bytes_of(200'000, 1)));
}

// Written in the same tick as the manifest, with the same size: no time tells it from the version that was hashed.
TEST_F(TreeScanTest, WhatIsAsYoungAsTheManifestIsReadAgain) {
  write_text(path("young"), "one");
  const StoredManifest before = index();
  struct stat s {};
  ASSERT_EQ(::stat(path("young").c_str(), &s), 0);
  write_text(path("young"), "two");
  const timespec times[2] = {s.st_atim, s.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, path("young").c_str(), times, 0), 0);
  const KnownTree known{.head = before.head, .pages = before.pages};
  Recorder recorder;
  ASSERT_THAT(scan(recorder, {.threads = 1, .known = &known}), test::Succeeds());
  EXPECT_EQ(recorder.entries.at("young").hash, blake3("two"));
}

TEST_F(TreeScanTest, ADamagedManifestIsNotBelieved) {
  write("large", bytes_of(200'000, 1));
  for (int i = 0; i < 100; ++i) write(fmt::format("x{}", i), std::to_string(i));
  const StoredManifest before = index();
  for (uint64_t at = 0; at < before.head.pages_bytes; at += 97) {
    const KnownTree known{.head = before.head, .pages = [&](ByteRange range) {
                            auto bytes = before.pages(range);
                            if (bytes && range.contains(at)) (*bytes)[at - range.begin] ^= 1;
                            return bytes;
                          }};
    Recorder recorder;
    ASSERT_THAT(scan(recorder, {.threads = 1, .known = &known}), test::Succeeds());
    ASSERT_EQ(recorder.entries.size(), 101u);
    ASSERT_EQ(recorder.entries.at("large").hash, blake3(bytes_of(200'000, 1)));
    ASSERT_EQ(recorder.entries.at("x7").hash, blake3("7"));
  }
}

// --- what is followed ---

TEST_F(TreeScanTest, OnlyWhatHasChangedIsLookedAt) {
  write("a/kept", bytes_of(200'000, 1));
  write("a/deep/kept", "x");
  write("b/changed", "abc");
  write("b/deep/kept", "y");
  fs::create_symlink("nowhere", path("a/link"));
  const StoredManifest before = index();
  write("b/changed", "abcd");
  write("a/kept", "not told of");
  fs::remove(path("a/deep/kept"));
  const KnownTree known{.head = before.head, .pages = before.pages};
  const std::set<std::string> changed = {"b"};
  Recorder recorder;
  const auto progress =
      scan(recorder, {.threads = 2, .known = &known, .following = Following{.begun = now(), .changed = &changed}});
  ASSERT_THAT(progress, test::Succeeds());
  EXPECT_EQ(recorder.order, (std::vector<std::string>{"/", "a/", "a/deep/", "a/deep/kept", "a/kept", "a/link", "b/",
                                                      "b/changed", "b/deep/", "b/deep/kept"}));
  EXPECT_EQ(recorder.entries.at("a/kept").hash, blake3(bytes_of(200'000, 1)));
  EXPECT_EQ(recorder.entries.at("a/link").target, "nowhere");
  EXPECT_EQ(recorder.entries.at("b/changed").hash, blake3("abcd"));
  EXPECT_EQ(progress->hashed_bytes, 4u);
}

// What inotify tells of a directory that came names it and all below it.
TEST_F(TreeScanTest, WhatTheManifestDoesNotKnowIsLookedAt) {
  write("a/kept", "x");
  const StoredManifest before = index();
  write("new/deep/file", "n");
  const KnownTree known{.head = before.head, .pages = before.pages};
  const std::set<std::string> changed = {"", "new"};
  Recorder recorder;
  const Following following{.begun = now(), .changed = &changed};
  ASSERT_THAT(scan(recorder, {.threads = 2, .known = &known, .following = following}), test::Succeeds());
  EXPECT_EQ(recorder.entries.at("new/deep/file").hash, blake3("n"));
  Recorder all;
  ASSERT_THAT(scan(all, {.threads = 2, .following = following}), test::Succeeds());
  EXPECT_EQ(all.order, recorder.order) << "nothing is known";
}

TEST_F(TreeScanTest, AnotherModeOfADirectoryIsSeenInItsParent) {
  write("a/deep/kept", "x");
  const StoredManifest before = index();
  fs::permissions(path("a/deep"), fs::perms(0700));
  const KnownTree known{.head = before.head, .pages = before.pages};
  const std::set<std::string> changed = {"a"};
  auto directory = ManifestDirectory::open_to_write(work_ / "manifest");
  auto pages = directory->new_file();
  Recorder recorder(&*pages);
  const Following following{.begun = now(), .changed = &changed};
  ASSERT_THAT(scan(recorder, {.threads = 2, .known = &known, .following = following}), test::Succeeds());
  ManifestHead head = recorder.head();
  head.sequence = directory->next_sequence(now());
  ASSERT_THAT(directory->publish(std::move(*pages), head, nullptr), test::Succeeds());
  EXPECT_EQ(differences(*directory->current()), std::vector<std::string>());
}

TEST_F(TreeScanTest, ALargeFileThatWasJustWrittenIsNotReadYet) {
  write_text(path("large"), bytes_of(5 << 20, 1));
  write_text(path("small"), "x");
  write_text(path("to come"), bytes_of(5 << 20, 2));
  age("to come", -1000);
  Recorder recorder;
  const auto progress = scan(recorder, {.threads = 2, .following = Following{.begun = now()}});
  ASSERT_THAT(progress, test::Succeeds());
  EXPECT_EQ(recorder.entries.at("large").size, 5u << 20);
  EXPECT_EQ(recorder.entries.at("large").hash, std::nullopt);
  EXPECT_EQ(recorder.entries.at("small").hash, blake3("x"));
  EXPECT_EQ(recorder.entries.at("to come").hash, blake3(bytes_of(5 << 20, 2))) << "or nobody would ever read it";
  age("large", 3);
  Recorder later;
  ASSERT_THAT(scan(later, {.threads = 2, .following = Following{.begun = now()}}), test::Succeeds());
  EXPECT_EQ(later.entries.at("large").hash, blake3(bytes_of(5 << 20, 1)));
}

TEST_F(TreeScanTest, AFileWithoutAHashIsTakenOverAsItIs) {
  write_text(path("large"), bytes_of(5 << 20, 1));
  const StoredManifest before = index({.threads = 2, .following = Following{.begun = now()}});
  age("large", 100);
  const KnownTree known{.head = before.head, .pages = before.pages};
  const std::set<std::string> none, all = {""};
  Recorder recorder, looked;
  ASSERT_THAT(scan(recorder, {.known = &known, .following = Following{.begun = now(), .changed = &none}}),
              test::Succeeds());
  EXPECT_EQ(recorder.entries.at("large").hash, std::nullopt);
  ASSERT_THAT(scan(looked, {.known = &known, .following = Following{.begun = now(), .changed = &all}}),
              test::Succeeds());
  EXPECT_EQ(looked.entries.at("large").hash, blake3(bytes_of(5 << 20, 1)));
}

// --- comparison ---

TEST_F(TreeScanTest, ATreeIsAsItsManifestSays) {
  write("a", "x");
  write("d/e/f", bytes_of(100'000, 1));
  fs::create_symlink("a", path("l"));
  EXPECT_EQ(differences(index()), std::vector<std::string>());
}

TEST_F(TreeScanTest, EachDifferenceIsNamed) {
  write("bigger", "x");
  write("changed", bytes_of(200'000, 1));
  write("gone", "x");
  write("lost/a/b", "x");
  write("mode", "x");
  write("time", "x");
  write("turned", "x");
  fs::create_symlink("a", path("link"));
  const StoredManifest manifest = index();
  write("bigger", "xx");
  std::string other = bytes_of(200'000, 1);
  other[70'000] ^= 1;
  struct stat s {};
  ASSERT_EQ(::stat(path("changed").c_str(), &s), 0);
  write_text(path("changed"), other);
  const timespec times[2] = {s.st_atim, s.st_mtim};
  ASSERT_EQ(::utimensat(AT_FDCWD, path("changed").c_str(), times, 0), 0);
  fs::remove(path("gone"));
  fs::remove_all(path("lost"));
  fs::permissions(path("mode"), fs::perms(0600));
  age("time", 7);
  fs::remove(path("turned"));
  fs::create_directories(path("turned/inside"));
  fs::remove(path("link"));
  fs::create_symlink("b", path("link"));
  write("extra/a", "x");
  write("extra2", "x");
  EXPECT_EQ(differences(manifest),
            (std::vector<std::string>{"size bigger", "content changed", "extra extra", "extra extra2", "missing gone",
                                      "target link", "missing lost", "mode mode", "time time", "type turned"}));
}

}  // namespace
}  // namespace wormhole
