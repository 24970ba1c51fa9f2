#include "cache/index_pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <utility>

#include "base/file_descriptor.h"

namespace wormhole {
namespace {

constexpr uint32_t kMagic = 0xbeefc0de;
constexpr uint64_t kNoRoot = ~uint64_t{0};
constexpr unsigned kDeepest = 32;  // LMDB's own limit

// Behind it the offsets of the nodes, 2 bytes each, up to `lower`; the nodes themselves lie from `upper` on. In an
// overflow page both together are the number of pages that follow each other.
struct PageHead {
  uint64_t number;
  uint16_t pad, flags, lower, upper;
};
constexpr uint16_t kBranch = 0x01, kLeaf = 0x02, kOverflow = 0x04;

// `low`, `high`: the size of the value; in a branch they are the number of the page below, with `flags` on top.
struct NodeHead {
  uint16_t low, high, flags, key_size;
};
constexpr uint16_t kBigValue = 0x01, kTable = 0x02;

struct Tree {
  uint32_t pad;
  uint16_t flags, depth;
  uint64_t branch_pages, leaf_pages, overflow_pages, entries, root;
};

struct Meta {
  uint32_t magic, version;
  uint64_t address, map_size;
  Tree free_pages, tables;
  uint64_t last_page, transaction;
};

template <typename... Args>
tl::unexpected<Error> damaged(fmt::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kCorrupt, format, std::forward<Args>(args)...);
}

class Pages {
 public:
  Pages(const std::byte* file, uint64_t page_size) : file_(file), page_size_(page_size) {}

  Status check(uint64_t transaction) {
    Meta meta{};
    for (uint64_t i = 0; i < 2 && (meta.magic != kMagic || meta.transaction != transaction); ++i)
      meta = read<Meta>(file_ + i * page_size_ + sizeof(PageHead));
    if (meta.magic != kMagic || meta.transaction != transaction) return damaged("pages: no meta page is right");
    used_.assign(meta.last_page + 1, false);
    if (used_.size() < 2) return damaged("pages: there is none");
    used_[0] = used_[1] = true;
    if (auto s = tree(meta.free_pages, "free pages"); !s) return s;
    if (auto s = tree(meta.tables, "tables"); !s) return s;
    if (meta.tables.flags != 0) return damaged("pages: the tables have flags {:x}", meta.tables.flags);
    for (const Tree& table : std::exchange(tables_, {})) {
      if (table.pad != 0 || table.flags != 0) return damaged("pages: a table has flags {:x}", table.flags);
      if (auto s = tree(table, "a table"); !s) return s;
      if (!tables_.empty()) return damaged("pages: a table in a table");
    }
    return {};
  }

  std::vector<bool> used() && { return std::move(used_); }

 private:
  template <typename T>
  static T read(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }

  Status use(uint64_t number, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      if (number < 2 || number >= used_.size() || i >= used_.size() - number || used_[number + i])
        return damaged("pages: {} is none, or has two owners", number + i);
      used_[number + i] = true;
    }
    return {};
  }

  Status tree(const Tree& expected, const char* name) {
    found_ = Tree{expected.pad, expected.flags, expected.depth, 0, 0, 0, 0, expected.root};
    if ((expected.root == kNoRoot) != (expected.depth == 0) || expected.depth > kDeepest)
      return damaged("pages: {}: a tree of depth {}", name, expected.depth);
    if (expected.root != kNoRoot) {
      if (auto s = page(expected.root, expected.depth); !s) return s;
    }
    if (std::memcmp(&found_, &expected, sizeof(expected)) != 0)
      return damaged("pages: {}: it has not as many pages and entries as it says", name);
    return {};
  }

  Status page(uint64_t number, unsigned depth) {
    if (auto s = use(number, 1); !s) return s;
    const std::byte* const begin = file_ + number * page_size_;
    const auto head = read<PageHead>(begin);
    const bool is_leaf = depth == 1;
    const bool good = head.number == number && head.flags == (is_leaf ? kLeaf : kBranch) && head.lower % 2 == 0 &&
                      head.lower > sizeof(head) && head.lower <= head.upper && head.upper <= page_size_;
    if (!good) return damaged("pages: the head of page {} is wrong", number);
    ++(is_leaf ? found_.leaf_pages : found_.branch_pages);
    for (uint64_t at = sizeof(head); at < head.lower; at += sizeof(uint16_t)) {
      const auto offset = read<uint16_t>(begin + at);
      if (offset < head.upper || offset + sizeof(NodeHead) > page_size_)
        return damaged("pages: page {}: a node at {}", number, offset);
      const auto node = read<NodeHead>(begin + offset);
      const uint64_t low = node.low | uint64_t{node.high} << 16;
      if (auto s =
              is_leaf ? value(begin, number, offset, node, low) : page(low | uint64_t{node.flags} << 32, depth - 1);
          !s)
        return s;
    }
    return {};
  }

  Status value(const std::byte* begin, uint64_t number, uint64_t offset, NodeHead node, uint64_t size) {
    ++found_.entries;
    const bool big = node.flags == kBigValue, table = node.flags == kTable;
    const uint64_t at = offset + sizeof(node) + node.key_size;
    const uint64_t here = big ? sizeof(uint64_t) : size;
    if ((!big && !table && node.flags != 0) || at > page_size_ || here > page_size_ - at ||
        (table && size != sizeof(Tree)))
      return damaged("pages: page {}: a value of {} bytes", number, size);
    if (table) tables_.push_back(read<Tree>(begin + at));
    return big ? overflow(read<uint64_t>(begin + at), size) : Status{};
  }

  Status overflow(uint64_t number, uint64_t size) {
    const uint64_t count = (sizeof(PageHead) + size + page_size_ - 1) / page_size_;
    if (auto s = use(number, count); !s) return s;
    const auto head = read<PageHead>(file_ + number * page_size_);
    if (head.number != number || head.flags != kOverflow || (head.lower | uint64_t{head.upper} << 16) != count)
      return damaged("pages: the head of page {} is wrong", number);
    found_.overflow_pages += count;
    return {};
  }

  const std::byte* const file_;
  const uint64_t page_size_;
  std::vector<bool> used_;
  std::vector<Tree> tables_;  // that were met in the tree of tables
  Tree found_{};
};

}  // namespace

Result<std::vector<bool>> check_pages(const std::string& file, uint64_t page_size, uint64_t transaction) {
  const FileDescriptor fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0) return fail(error_from_errno(errno, "index: open " + file));
  const auto size = static_cast<size_t>(status.st_size);
  if (size < 2 * page_size) return damaged("pages: a file of {} bytes", size);
  void* const mapped = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (mapped == MAP_FAILED) return fail(error_from_errno(errno, "index: map " + file));
  Pages pages(static_cast<const std::byte*>(mapped), page_size);
  const Status checked = pages.check(transaction);
  ::munmap(mapped, size);
  if (!checked) return fail(checked.error());
  return std::move(pages).used();
}

}  // namespace wormhole
