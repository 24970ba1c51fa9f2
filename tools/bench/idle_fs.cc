// A file system that does as little as one can: what FUSE itself costs a walk over small files. Names, sizes and bytes
// are computed; every answer that the kernel may keep is kept; an open needs no look at anything.
//
//   idle_fs FILES IN_DIRECTORY SIZE [libfuse's options] MOUNTPOINT
//
// The tree is that of warm_path.py's `small-files`: directories 000, 001, …, each with IN_DIRECTORY files
// file-000000, …, of SIZE zeros. With `-o io_uring` requests come by libfuse's rings.
#define FUSE_USE_VERSION 317
#include <fmt/format.h>
#include <fuse_lowlevel.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

struct Tree {
  uint64_t files = 0, in_directory = 1, size = 0;

  uint64_t directories() const { return (files + in_directory - 1) / in_directory; }
  // Inode numbers: the root, the directories, the files.
  fuse_ino_t directory(uint64_t i) const { return FUSE_ROOT_ID + 1 + i; }
  fuse_ino_t file(uint64_t i) const { return FUSE_ROOT_ID + 1 + directories() + i; }
  bool is_file(fuse_ino_t ino) const { return ino >= file(0); }

  // How many names there are in a directory, what they are, and the inode number of each. Files are numbered on from
  // one directory to the next.
  uint64_t first_of(fuse_ino_t ino) const { return ino == FUSE_ROOT_ID ? 0 : (ino - directory(0)) * in_directory; }
  uint64_t names_in(fuse_ino_t ino) const {
    return ino == FUSE_ROOT_ID ? directories() : std::min(in_directory, files - first_of(ino));
  }
  std::string name_in(fuse_ino_t ino, uint64_t i) const {
    return ino == FUSE_ROOT_ID ? fmt::format("{:03}", i) : fmt::format("file-{:06}", first_of(ino) + i);
  }
  fuse_ino_t ino_in(fuse_ino_t ino, uint64_t i) const {
    return ino == FUSE_ROOT_ID ? directory(i) : file(first_of(ino) + i);
  }
};

Tree tree;
const std::vector<char> zeros(1 << 20);

// Longer than anybody measures.
constexpr double kForEver = 86'400;

uint64_t number(std::string_view text) {
  uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

struct stat status_of(fuse_ino_t ino) {
  struct stat s {};
  s.st_ino = ino;
  s.st_nlink = 1;
  s.st_mode = tree.is_file(ino) ? S_IFREG | 0444 : S_IFDIR | 0555;
  s.st_size = tree.is_file(ino) ? static_cast<off_t>(tree.size) : 0;
  s.st_blocks = (s.st_size + 511) / 512;
  return s;
}

fuse_entry_param entry_of(fuse_ino_t ino) {
  fuse_entry_param e{};
  e.ino = ino;
  e.attr = status_of(ino);
  e.attr_timeout = e.entry_timeout = kForEver;
  return e;
}

void init(void*, fuse_conn_info* connection) {
  ::fuse_set_feature_flag(connection, FUSE_CAP_PARALLEL_DIROPS);
  ::fuse_set_feature_flag(connection, FUSE_CAP_READDIRPLUS);
  ::fuse_unset_feature_flag(connection, FUSE_CAP_READDIRPLUS_AUTO);
  ::fuse_unset_feature_flag(connection, FUSE_CAP_SPLICE_READ);
  ::fuse_unset_feature_flag(connection, FUSE_CAP_SPLICE_WRITE);
}

void lookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  const std::string_view text = name;
  const uint64_t i = number(text.substr(parent == FUSE_ROOT_ID ? 0 : std::min<size_t>(text.size(), 5)));
  const uint64_t first = tree.first_of(parent);
  if (tree.is_file(parent) || i < first || i - first >= tree.names_in(parent) ||
      tree.name_in(parent, i - first) != text) {
    ::fuse_reply_err(req, ENOENT);
    return;
  }
  const fuse_entry_param e = entry_of(tree.ino_in(parent, i - first));
  ::fuse_reply_entry(req, &e);
}

void getattr(fuse_req_t req, fuse_ino_t ino, fuse_file_info*) {
  const struct stat s = status_of(ino);
  ::fuse_reply_attr(req, &s, kForEver);
}

void opendir(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  info->cache_readdir = info->keep_cache = 1;
  ::fuse_reply_open(req, info);
}

void readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, fuse_file_info*) {
  std::vector<char> out(size);
  size_t used = 0;
  for (uint64_t i = static_cast<uint64_t>(offset); i < tree.names_in(ino); ++i) {
    const fuse_entry_param e = entry_of(tree.ino_in(ino, i));
    const size_t more = ::fuse_add_direntry_plus(req, out.data() + used, size - used, tree.name_in(ino, i).c_str(), &e,
                                                 static_cast<off_t>(i + 1));
    if (more > size - used) break;
    used += more;
  }
  ::fuse_reply_buf(req, out.data(), used);
}

void open(fuse_req_t req, fuse_ino_t, fuse_file_info* info) {
  info->keep_cache = info->noflush = 1;
  ::fuse_reply_open(req, info);
}

void read(fuse_req_t req, fuse_ino_t, size_t size, off_t offset, fuse_file_info*) {
  const uint64_t left = tree.size - std::min<uint64_t>(tree.size, static_cast<uint64_t>(offset));
  ::fuse_reply_buf(req, zeros.data(), std::min({size, left, zeros.size()}));
}

void release(fuse_req_t req, fuse_ino_t, fuse_file_info*) { ::fuse_reply_err(req, 0); }

int serve(fuse_args& args) {
  fuse_cmdline_opts options{};
  if (::fuse_parse_cmdline(&args, &options) != 0 || options.mountpoint == nullptr) return 2;
  fuse_lowlevel_ops ops{};
  ops.init = init;
  ops.lookup = lookup;
  ops.getattr = getattr;
  ops.opendir = opendir;
  ops.readdirplus = readdirplus;
  ops.open = open;
  ops.read = read;
  ops.release = release;
  fuse_session* session = ::fuse_session_new(&args, &ops, sizeof(ops), nullptr);
  if (session == nullptr) return 1;
  int code = 1;
  if (::fuse_set_signal_handlers(session) == 0) {
    if (::fuse_session_mount(session, options.mountpoint) == 0) {
      fuse_loop_config* config = ::fuse_loop_cfg_create();
      code = ::fuse_session_loop_mt(session, config);
      ::fuse_loop_cfg_destroy(config);
      ::fuse_session_unmount(session);
    }
    ::fuse_remove_signal_handlers(session);
  }
  ::fuse_session_destroy(session);
  std::free(options.mountpoint);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    fmt::print(stderr, "usage: {} FILES IN_DIRECTORY SIZE [options] MOUNTPOINT\n", argv[0]);
    return 2;
  }
  tree = {number(argv[1]), std::max<uint64_t>(number(argv[2]), 1), number(argv[3])};
  argv[3] = argv[0];
  fuse_args args = FUSE_ARGS_INIT(argc - 3, argv + 3);
  const int code = serve(args);
  ::fuse_opt_free_args(&args);
  return code;
}
