// page-toucher FILE [STEP]: maps FILE read-only and reads one byte of every STEP-th page (default 1), last page first,
// so that every access is a page fault of its own and read-ahead guesses wrong. Prints the sum of the bytes.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: page-toucher FILE [STEP]\n");
    return 2;
  }
  const int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (fd < 0 || fstat(fd, &status) != 0) {
    std::perror(argv[1]);
    return 1;
  }
  const auto size = static_cast<uint64_t>(status.st_size);
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t step = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  if (size == 0) return std::puts("0") < 0;  // there is nothing to map
  void* map = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED) {
    std::perror("mmap");
    return 1;
  }
  const volatile unsigned char* bytes = static_cast<const unsigned char*>(map);
  uint64_t sum = 0;
  const uint64_t pages = (size + page - 1) / page;
  for (uint64_t done = 0; done < pages; done += step) sum += bytes[(pages - 1 - done) * page];
  std::printf("%llu\n", static_cast<unsigned long long>(sum));
}
