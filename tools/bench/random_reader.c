// Random reads of one file by many threads at once, and how long each took.
//
//   random_reader FILE ORIGINAL THREADS SECONDS SEED
//
// Each thread has a descriptor of its own and reads 4 KiB at random multiples of 4 KiB, one read after another. After
// the time of a read is taken, its bytes are compared with those of ORIGINAL. Prints a JSON object:
//
//   reads                      that have ended within SECONDS
//   reads_per_second_by_100_ms of them, how fast they came
//   first_second, all          the reads that have begun in that time: how many of them have ended in it, and how long
//                              they took, also those that have ended later
//   blocks                     distinct blocks of 64 KiB that were asked for
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { kRead = 4096, kBlock = 65536 };
static const int64_t kSecond = 1000000000;

struct read_done {
  int64_t begun, took;  // nanoseconds; begun since the start
  uint64_t offset;
};

struct reader {
  pthread_t thread;
  int file, original;
  uint64_t chance;
  struct read_done* reads;
  size_t count, room;
};

static uint64_t places;
static int64_t limit;
static int64_t started;
static pthread_barrier_t ready;

static void die(const char* what) {
  perror(what);
  exit(1);
}

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * kSecond + t.tv_nsec;
}

// splitmix64
static uint64_t random_number(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

static void remember(struct reader* r, struct read_done done) {
  if (r->count == r->room) {
    r->room = r->room ? 2 * r->room : 1 << 16;
    r->reads = realloc(r->reads, r->room * sizeof *r->reads);
    if (!r->reads) die("memory");
  }
  r->reads[r->count++] = done;
}

static void* run(void* argument) {
  struct reader* r = argument;
  char seen[kRead], truth[kRead];
  pthread_barrier_wait(&ready);  // all files are open
  pthread_barrier_wait(&ready);  // `started` is set
  for (int64_t begun; (begun = now() - started) < limit;) {
    const uint64_t offset = random_number(&r->chance) % places * kRead;
    const ssize_t n = pread(r->file, seen, kRead, (off_t)offset);
    remember(r, (struct read_done){begun, now() - started - begun, offset});
    if (n < 0) die("read");
    if (n != kRead || pread(r->original, truth, kRead, (off_t)offset) != kRead || memcmp(seen, truth, kRead) != 0) {
      fprintf(stderr, "wrong bytes at %llu\n", (unsigned long long)offset);
      exit(1);
    }
  }
  return NULL;
}

static int compare(const void* a, const void* b) {
  const int64_t x = *(const int64_t*)a, y = *(const int64_t*)b;
  return (x > y) - (x < y);
}

// The smallest one that `share` of them do not exceed, in milliseconds.
static double percentile(const int64_t* sorted, size_t count, double share) {
  if (count == 0) return 0;
  const double rank = share * (double)count;
  size_t index = (size_t)rank;
  if ((double)index < rank) ++index;
  return (double)sorted[index > 0 ? index - 1 : 0] / 1e6;
}

static void print_times(const char* name, const struct reader* readers, int threads, int64_t end, int64_t* times) {
  size_t begun = 0, ended = 0;
  for (int i = 0; i < threads; ++i) {
    for (size_t k = 0; k < readers[i].count; ++k) {
      const struct read_done* d = &readers[i].reads[k];
      if (d->begun < end) times[begun++] = d->took;
      if (d->begun + d->took <= end) ++ended;
    }
  }
  qsort(times, begun, sizeof *times, compare);
  printf("\"%s\": {\"reads\": %zu, \"p50_ms\": %.3f, \"p90_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f}", name,
         ended, percentile(times, begun, 0.5), percentile(times, begun, 0.9), percentile(times, begun, 0.99),
         percentile(times, begun, 1));
}

int main(int argc, char** argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: random_reader FILE ORIGINAL THREADS SECONDS SEED\n");
    return 2;
  }
  const int threads = atoi(argv[3]);
  limit = (int64_t)(atof(argv[4]) * (double)kSecond);
  struct reader* readers = calloc((size_t)threads, sizeof *readers);
  pthread_barrier_init(&ready, NULL, (unsigned)threads + 1);
  struct stat s = {0};
  for (int i = 0; i < threads; ++i) {
    struct reader* r = &readers[i];
    r->file = open(argv[1], O_RDONLY);
    r->original = open(argv[2], O_RDONLY);
    if (r->file < 0 || r->original < 0 || fstat(r->file, &s) != 0) die("open");
    r->chance = strtoull(argv[5], NULL, 10) * 1000003 + (uint64_t)i;
  }
  places = (uint64_t)s.st_size / kRead;
  if (places == 0) {
    fprintf(stderr, "%s is smaller than one read\n", argv[1]);
    return 1;
  }
  for (int i = 0; i < threads; ++i) pthread_create(&readers[i].thread, NULL, run, &readers[i]);
  pthread_barrier_wait(&ready);
  started = now();
  pthread_barrier_wait(&ready);
  for (int i = 0; i < threads; ++i) pthread_join(readers[i].thread, NULL);

  size_t all = 0, blocks = 0, in_time = 0;
  const size_t buckets = (size_t)((limit + kSecond / 10 - 1) / (kSecond / 10));
  size_t* ended = calloc(buckets, sizeof *ended);
  char* asked = calloc((size_t)s.st_size / kBlock + 1, 1);
  for (int i = 0; i < threads; ++i) {
    for (size_t k = 0; k < readers[i].count; ++k) {
      const struct read_done* d = &readers[i].reads[k];
      const int64_t end = d->begun + d->took;
      if (end < limit) {
        ++ended[end / (kSecond / 10)];
        ++in_time;
      }
      blocks += !asked[d->offset / kBlock];
      asked[d->offset / kBlock] = 1;
    }
    all += readers[i].count;
  }
  int64_t* times = calloc(all + 1, sizeof *times);
  printf("{\"reads\": %zu, \"seconds\": %.3f, \"blocks\": %zu, ", in_time, (double)limit / (double)kSecond, blocks);
  print_times("first_second", readers, threads, kSecond, times);
  printf(", ");
  print_times("all", readers, threads, limit, times);
  printf(", \"reads_per_second_by_100_ms\": [");
  for (size_t i = 0; i < buckets; ++i) printf("%s%zu", i ? ", " : "", ended[i] * 10);
  printf("]}\n");
  return 0;
}
