#include "cache/index_check.h"

#include <fcntl.h>
#include <lmdb.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "base/log.h"
#include "cache/index_pages.h"
#include "cache/lmdb_index.h"

namespace wormhole {
namespace {

// A damaged tree may lead in circles. A second is some millions of records, of which a terabyte has a quarter.
constexpr rlim_t kMostCpuSeconds = 60;

// About 50 ms from a cold disk; the index of some 50 GB of large files. A mount takes no longer for a larger cache.
constexpr uint64_t kAlwaysChecked = 32 << 20;

constexpr size_t kMostMessage = 400;

using Environment = std::unique_ptr<MDB_env, decltype(&::mdb_env_close)>;
using Transaction = std::unique_ptr<MDB_txn, decltype(&::mdb_txn_abort)>;
using Cursor = std::unique_ptr<MDB_cursor, decltype(&::mdb_cursor_close)>;

template <typename... Args>
tl::unexpected<Error> damaged(fmt::format_string<Args...> format, Args&&... args) {
  return fail(ErrorCode::kCorrupt, format, std::forward<Args>(args)...);
}

Status lmdb(int code, const char* what) {
  if (code == 0) return {};
  if (code > 0) return fail(error_from_errno(code, fmt::format("index: {}", what)));
  return damaged("{}: {}", what, ::mdb_strerror(code));
}

class Check {
 public:
  Check(MDB_txn* txn, std::vector<bool> used) : txn_(txn), used_(std::move(used)) {}

  Result<IndexReport> run() {
    if (auto s = free_pages(); !s) return fail(s.error());
    if (auto s = names(); !s) return fail(s.error());
    // Meta first: the others look at its numbers. Tables that this program does not know, or not yet has, are no
    // matter.
    struct Table {
      const char* name;
      Status (Check::*look)(std::string_view key, std::string_view value);
      bool must_be;
    };
    const Table all[] = {{"meta", &Check::meta, true},       {"directories", &Check::directory, true},
                         {"objects", &Check::object, true},  {"roots", &Check::root, true},
                         {"queues", &Check::place, true},    {"regions", &Check::region, true},
                         {"hosts", &Check::anything, false}, {"pins", &Check::pin, false},
                         {"slabs", &Check::slab, true},      {"summaries", &Check::summary, true},
                         {"uses", &Check::use, false},       {"aliases", &Check::alias, false}};
    for (const Table& t : all) {
      if (!tables_.contains(t.name)) {
        if (t.must_be && !tables_.empty()) return damaged("no table {}", t.name);
        continue;
      }
      const auto look = t.look;
      auto s =
          each(tables_[t.name], t.name, true, [this, look](auto key, auto value) { return (this->*look)(key, value); });
      if (!s) return fail(s.error());
    }
    if (auto s = sums(); !s) return fail(s.error());
    if (auto s = pack(); !s) return fail(s.error());
    return report_;
  }

 private:
  using Look = std::function<Status(std::string_view key, std::string_view value)>;

  // In order, each once, each found by its key, and as many as the table says.
  Status each(MDB_dbi table, const char* name, bool sealed, const Look& look) {
    MDB_stat stat{};
    if (auto s = lmdb(::mdb_stat(txn_, table, &stat), name); !s) return s;
    MDB_cursor* opened = nullptr;
    if (auto s = lmdb(::mdb_cursor_open(txn_, table, &opened), name); !s) return s;
    const Cursor cursor(opened, &::mdb_cursor_close);
    MDB_val k{}, v{};
    std::string before;
    size_t count = 0;
    int e = ::mdb_cursor_get(opened, &k, &v, MDB_FIRST);
    for (; e == 0; e = ::mdb_cursor_get(opened, &k, &v, MDB_NEXT)) {
      MDB_val found{};
      if (count++ > 0 && as_view(k) <= before) return damaged("{}: keys are not in order", name);
      if (count > stat.ms_entries) return damaged("{}: more records than it says", name);
      if (::mdb_get(txn_, table, &k, &found) != 0 || found.mv_data != v.mv_data)
        return damaged("{}: a record is not found by its key", name);
      before = as_view(k);
      const auto value = sealed ? unseal(before, as_view(v)) : as_view(v);
      if (!value) return damaged("{}: a record has a wrong checksum", name);
      if (auto s = look(before, *value); !s) return s;
    }
    if (e != MDB_NOTFOUND) return lmdb(e, name);
    if (count != stat.ms_entries) return damaged("{}: {} records instead of {}", name, count, stat.ms_entries);
    return {};
  }

  // LMDB's lists of pages that it may write to, by the transaction that has freed them; in each the highest comes
  // first. Each is a page of the file, none twice, and none that is used.
  Status free_pages() {
    MDB_envinfo info{};
    ::mdb_env_info(::mdb_txn_env(txn_), &info);
    size_t transaction = 0;
    MDB_cursor* opened = nullptr;
    if (auto s = lmdb(::mdb_cursor_open(txn_, 0, &opened), "free pages"); !s) return s;
    const Cursor cursor(opened, &::mdb_cursor_close);
    MDB_val k{}, v{};
    int e = 0;
    while ((e = ::mdb_cursor_get(opened, &k, &v, MDB_NEXT)) == 0) {
      const size_t before = transaction;
      if (k.mv_size != sizeof(transaction)) return damaged("free pages: a key of {} bytes", k.mv_size);
      std::memcpy(&transaction, k.mv_data, sizeof(transaction));
      if (transaction <= before || transaction > info.me_last_txnid)
        return damaged("free pages: of transaction {}", transaction);
      // The length and so many numbers; in place, for a length may be wrong.
      const auto number = [&v](size_t i) {
        size_t value = 0;
        std::memcpy(&value, static_cast<const std::byte*>(v.mv_data) + i * sizeof(value), sizeof(value));
        return value;
      };
      const size_t size = v.mv_size / sizeof(size_t);
      if (size == 0 || number(0) >= size) return damaged("free pages: a list is too long");
      for (size_t i = 1; i <= number(0); ++i) {
        const size_t page = number(i);
        if (page >= used_.size() || used_[page] || (i > 1 && page >= number(i - 1)))
          return damaged("free pages: page {}", page);
        used_[page] = true;
      }
    }
    return e == MDB_NOTFOUND ? Status{} : lmdb(e, "free pages");
  }

  Status names() {
    MDB_dbi main = 0;
    if (auto s = lmdb(::mdb_dbi_open(txn_, nullptr, 0, &main), "tables"); !s) return s;
    std::vector<std::string> all;
    auto s = each(main, "tables", false, [&all](auto key, auto) {
      all.emplace_back(key);
      return Status{};
    });
    if (!s) return s;
    for (const std::string& name : all) {
      MDB_dbi table = 0;
      if (auto o = lmdb(::mdb_dbi_open(txn_, name.c_str(), 0, &table), "table"); !o) return o;
      tables_[name] = table;
    }
    return {};
  }

  Status meta(std::string_view key, std::string_view value) {
    uint64_t number = 0;
    if (value.size() != sizeof(number)) return {};  // others look at it
    std::memcpy(&number, value.data(), sizeof(number));
    numbers_[std::string(key)] = number;
    return {};
  }

  Status anything(std::string_view, std::string_view) { return {}; }
  // Any number: what was never given out does no harm.
  Status pin(std::string_view key, std::string_view) {
    if (!decode_ino(key)) return damaged("pins: a key of {} bytes", key.size());
    return {};
  }

  // A number that was never given out would be given to other bytes.
  Status use(std::string_view key, std::string_view value) {
    const auto use = decode_content_use(key);
    if (!use) return damaged("uses: a key of {} bytes", key.size());
    if (auto s = below_next("uses", use->file); !s) return s;
    return object_number("uses", value);
  }
  Status alias(std::string_view key, std::string_view value) {
    if (auto s = ino("aliases", key); !s) return s;
    return object_number("aliases", value);
  }
  Status object_number(const char* what, std::string_view value) {
    Ino number = 0;
    if (value.size() != sizeof(number)) return damaged("{}: a record of {} bytes", what, value.size());
    std::memcpy(&number, value.data(), sizeof(number));
    return below_next(what, number);
  }

  Status ino(const char* what, std::string_view key) {
    if (key.size() != sizeof(Ino)) return damaged("{}: a key of {} bytes", what, key.size());
    uint64_t number = 0;
    std::memcpy(&number, key.data(), sizeof(number));
    return below_next(what, __builtin_bswap64(number));
  }
  Status below_next(const char* what, Ino number) {
    if (number >= numbers_["next_ino"]) return damaged("{}: inode number {} was never given out", what, number);
    return {};
  }

  Status directory(std::string_view key, std::string_view) { return ino("directories", key); }
  Status object(std::string_view key, std::string_view value) {
    if (!decode_object(value)) return damaged("objects: a record of {} bytes", value.size());
    ++report_.objects;
    return ino("objects", key);
  }
  Status root(std::string_view, std::string_view value) {
    const auto record = decode_root(value);
    if (!record) return damaged("roots: a record of {} bytes", value.size());
    return below_next("roots", record->ino);
  }
  Status place(std::string_view key, std::string_view value) {
    const auto position = decode_queue_position(key);
    if (!position || position->sequence == 0 || position->sequence >= numbers_["next_sequence"])
      return damaged("queues: a place that was never given out");
    if (!decode_region_key(value)) return damaged("queues: a record of {} bytes", value.size());
    ++places_;
    return {};
  }

  // Each region stands in one place, and there are as many places as regions: so each place has its region as well.
  Status region(std::string_view key, std::string_view value) {
    const auto k = decode_region_key(key);
    const auto record = decode_region(value);
    if (!k || !record || record->present == 0) return damaged("regions: a record of {} bytes", value.size());
    const auto object = get("objects", encode_key(k->ino));
    const auto of = object ? decode_object(*object) : std::nullopt;
    if (!of) return damaged("regions: of object {}, which is not on record", k->ino);
    const uint64_t blocks = block_count(of->size);
    const uint64_t last = k->region * kBlocksPerRegion + static_cast<unsigned>(std::bit_width(record->present)) - 1;
    if (last >= blocks) return damaged("regions: block {} of object {}, which has {}", last, k->ino, blocks);
    if (get("queues", encode_key(record->position)) != key)
      return damaged("regions: {} of object {} is not where it should be in the queue", k->region, k->ino);
    if (lies_in_pack(of->size) != (record->place != kNoPlace))
      return damaged("regions: object {} has no place, or one too many", k->ino);
    if (record->place != kNoPlace && !take_place(record->place, of->size))
      return damaged("regions: object {} lies where another does", k->ino);
    const auto bytes = static_cast<uint64_t>(room_of(record->present, k->region, of->size));
    (record->position.main ? main_ : small_) += bytes;
    report_.bytes += bytes;
    ++report_.regions;
    return {};
  }

  Status sums() {
    if (places_ != report_.regions) return damaged("queues: {} places for {} regions", places_, report_.regions);
    if (numbers_["small"] != small_) return damaged("meta: small={}, it is {}", numbers_["small"], small_);
    if (numbers_["main"] != main_) return damaged("meta: main={}, it is {}", numbers_["main"], main_);
    return {};
  }

  // Where the objects lie, as the regions say; the slabs have to say the same.
  bool take_place(uint64_t offset, uint64_t size) {
    const auto page = static_cast<uint32_t>(offset % kSlabSize / kPageSize);
    return offset % kPageSize == 0 &&
           places_in_pack_[offset / kSlabSize].take(page, static_cast<uint32_t>((size + kPageSize - 1) / kPageSize));
  }
  Status slab(std::string_view key, std::string_view value) {
    const auto number = decode_ino(key);
    const auto pages = PageRuns::decode(value);
    if (!number || !pages) return damaged("slabs: a record of {} bytes", value.size());
    slabs_[*number] = *pages;
    return {};
  }
  Status summary(std::string_view key, std::string_view value) {
    const auto number = decode_ino(key);
    if (number != summaries_.size()) return damaged("summaries: one is missing");
    summaries_.emplace_back(value);
    return {};
  }
  Status pack() {
    if (slabs_ != places_in_pack_) return damaged("slabs: they do not say what the regions say");
    const auto load = [this](uint32_t number) -> std::optional<std::string> { return slabs_[number].encode(); };
    auto space = PackSpace::open(summaries_, load);
    if (!space) return damaged("summaries: a record that cannot be");
    uint64_t used = 0;
    for (uint32_t i = 0; i < space->slabs(); ++i) space->free_ranges(i);  // looks at each
    for (const auto& [number, pages] : slabs_) used += uint64_t{kPagesPerSlab - pages.free_pages()} * kPageSize;
    if (space->damaged() > 0 || space->used() != used) return damaged("summaries: they do not say what the slabs say");
    return {};
  }

  std::optional<std::string_view> get(const char* table, std::string_view key) {
    return get_in(txn_, tables_[table], key);
  }

  MDB_txn* const txn_;
  std::vector<bool> used_;  // pages
  std::map<std::string, MDB_dbi> tables_;
  std::map<std::string, uint64_t> numbers_;
  uint64_t places_ = 0, small_ = 0, main_ = 0;
  std::map<uint64_t, PageRuns> places_in_pack_, slabs_;
  std::vector<std::string> summaries_;
  IndexReport report_;
};

}  // namespace

Result<IndexFound> delete_if_damaged(const std::string& path, bool may_be_damaged) {
  const std::string file = path + "/data.mdb";
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0 || status.st_size == 0) return IndexFound::kNone;
  if (!may_be_damaged && static_cast<uint64_t>(status.st_size) > kAlwaysChecked) return IndexFound::kSound;
  const auto checked = check_index_apart(path);
  if (checked) return IndexFound::kSound;
  if (checked.error().code != ErrorCode::kCorrupt) return fail(checked.error());
  log::error("the cache's index is damaged, the cache begins anew: why=\"{}\"", checked.error().message);
  if (::unlink(file.c_str()) != 0) return fail(error_from_errno(errno, "index: delete " + file));
  ::unlink((path + "/lock.mdb").c_str());
  return IndexFound::kDamaged;
}

Result<IndexReport> check_index(const std::string& path) {
  MDB_env* made = nullptr;
  if (auto s = lmdb(::mdb_env_create(&made), "create environment"); !s) return fail(s.error());
  const Environment env(made, &::mdb_env_close);
  ::mdb_env_set_maxdbs(made, kMostTables);
  ::mdb_env_set_mapsize(made, kMapSize);
  const int opened = ::mdb_env_open(made, path.c_str(), MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, 0600);
  // What it cannot map is longer than what it was ever allowed to write.
  if (opened == ENOMEM || opened == EINVAL) return damaged("open: {}", ::strerror(opened));
  if (auto s = lmdb(opened, "open"); !s) return fail(s.error());
  MDB_txn* begun = nullptr;
  if (auto s = lmdb(::mdb_txn_begin(made, nullptr, MDB_RDONLY, &begun), "begin"); !s) return fail(s.error());
  const Transaction txn(begun, &::mdb_txn_abort);
  MDB_stat stat{};
  MDB_envinfo info{};
  ::mdb_env_stat(made, &stat);
  ::mdb_env_info(made, &info);
  auto used = check_pages(path + "/data.mdb", stat.ms_psize, info.me_last_txnid);
  if (!used) return fail(used.error());
  return Check(begun, std::move(*used)).run();
}

Status check_index_apart(const std::string& path) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return fail(error_from_errno(errno, "index: check"));
  FileDescriptor from_child(fds[0]), to_parent(fds[1]);
  const pid_t child = ::fork();
  if (child < 0) return fail(error_from_errno(errno, "index: check"));
  if (child == 0) {
    // Dies quietly, whatever has been arranged for a crash of the program.
    for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL}) ::signal(signal, SIG_DFL);
    ::prctl(PR_SET_DUMPABLE, 0);
    if (const int null = ::open("/dev/null", O_WRONLY); null >= 0) ::dup2(null, STDERR_FILENO);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const rlimit cpu{kMostCpuSeconds, kMostCpuSeconds};
    ::setrlimit(RLIMIT_CPU, &cpu);
    const auto checked = check_index(path);
    if (checked) ::_exit(0);
    const std::string message = checked.error().message.substr(0, kMostMessage);
    (void)!::write(to_parent.get(), message.data(), message.size());
    ::_exit(checked.error().code == ErrorCode::kCorrupt ? 1 : 2);
  }
  to_parent = FileDescriptor();
  char text[kMostMessage];
  const ssize_t length = ::read(from_child.get(), text, sizeof(text));
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) return damaged("LMDB dies of it: signal {}", WTERMSIG(status));
  const std::string message(text, length > 0 ? static_cast<size_t>(length) : 0);
  if (WEXITSTATUS(status) == 1) return fail(Error{ErrorCode::kCorrupt, message});
  if (WEXITSTATUS(status) != 0) return fail(Error{ErrorCode::kIo, message});
  return {};
}

}  // namespace wormhole
