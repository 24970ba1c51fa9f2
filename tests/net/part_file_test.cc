#include "net/part_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/printing.h"
#include "tests/support/temporary_directory.h"

namespace wormhole {
namespace {

using test::FailsWith;
using test::read_text;
using test::Succeeds;
using test::write_text;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Start = PartFile::Start;

const PartFile::Identity kIdentity = {"http://h/f", 10, {"\"v1\"", "Sat, 21 Nov 2026 02:57:01 GMT"}};

class PartFileTest : public ::testing::Test {
 protected:
  std::unique_ptr<PartFile> open(const PartFile::Identity& identity = kIdentity) {
    auto part = PartFile::open(target_, identity);
    EXPECT_THAT(part, Succeeds());
    return part ? std::move(*part) : nullptr;
  }
  static Status write(PartFile& part, uint64_t offset, std::string_view text) {
    return part.write(offset, std::as_bytes(std::span(text)));
  }
  // An earlier run that got the bytes [2, 5) into the journal, and [5, 7) not.
  void interrupted_run() {
    const auto part = open();
    EXPECT_THAT(write(*part, 2, "cde"), Succeeds());
    EXPECT_THAT(part->checkpoint_now(), Succeeds());
    EXPECT_THAT(write(*part, 5, "fg"), Succeeds());
  }
  // How a run with this identity begins after that one.
  Start start_with(const PartFile::Identity& identity) {
    interrupted_run();
    const auto part = open(identity);
    EXPECT_EQ(part->present().size(), part->start() == Start::kResumed ? 3 : 0);
    const Start start = part->start();
    part->discard();
    return start;
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) {
      names.push_back(entry.path().filename());
    }
    return names;
  }

  const test::TemporaryDirectory directory_;
  const std::string target_ = directory_ / "file";
};

TEST_F(PartFileTest, BecomesTheFileWhenAllIsThere) {
  const auto part = open();
  EXPECT_EQ(part->start(), Start::kFresh);
  EXPECT_THAT(write(*part, 5, "fghij"), Succeeds());
  EXPECT_THAT(write(*part, 0, "abcde"), Succeeds());
  EXPECT_THAT(part->checkpoint_now(), Succeeds());
  EXPECT_FALSE(std::filesystem::exists(target_));
  EXPECT_THAT(part->finish(/*replace=*/false), Succeeds());
  EXPECT_EQ(read_text(target_), "abcdefghij");
  EXPECT_THAT(files(), ElementsAre("file"));
}

TEST_F(PartFileTest, GoesOnWithWhatTheJournalKnows) {
  interrupted_run();
  const auto part = open();
  EXPECT_EQ(part->start(), Start::kResumed);
  EXPECT_THAT(part->present().ranges(), ElementsAre(ByteRange{2, 5})) << "more may be on the disk, but who knows";
  EXPECT_THAT(write(*part, 0, "ab"), Succeeds());
  EXPECT_THAT(write(*part, 5, "fghij"), Succeeds());
  EXPECT_THAT(part->finish(false), Succeeds());
  EXPECT_EQ(read_text(target_), "abcdefghij");
}

TEST_F(PartFileTest, DropsWhatBelongsToSomethingElse) {
  EXPECT_EQ(start_with(kIdentity), Start::kResumed);
  PartFile::Identity other = kIdentity;
  other.validator.etag = "\"v2\"";
  EXPECT_EQ(start_with(other), Start::kDropped);
  other = kIdentity;
  other.size = 11;
  EXPECT_EQ(start_with(other), Start::kDropped);
  other = kIdentity;
  other.url = "http://h/g";
  EXPECT_EQ(start_with(other), Start::kDropped);
}

TEST_F(PartFileTest, DropsWhatNoVersionProves) {
  for (const Validator& validator : {Validator{}, Validator{"W/\"weak\"", ""}}) {
    const PartFile::Identity identity = {"http://h/f", 10, validator};
    {
      const auto part = open(identity);
      EXPECT_THAT(write(*part, 0, "abc"), Succeeds());
      EXPECT_THAT(part->checkpoint_now(), Succeeds());
      EXPECT_FALSE(part->is_resumable());
    }
    EXPECT_EQ(open(identity)->start(), Start::kDropped);
  }
}

TEST_F(PartFileTest, SurvivesAnyJournal) {
  for (const char* journal : {"", "{", "[]", "null", "{\"format\":1}", "\xFF\xFE", "{\"done\":[[0,10]]}"}) {
    interrupted_run();
    write_text(target_ + ".wormhole-part.json", journal);
    EXPECT_EQ(open()->present().size(), 0) << journal;
  }
  interrupted_run();
  std::string text = read_text(target_ + ".wormhole-part.json");
  text.replace(text.find("[[2,5]]"), 7, "[[2,5],[9,11],[7,6],[-1,3],[\"x\",1],5,[1]]");
  write_text(target_ + ".wormhole-part.json", text);
  EXPECT_THAT(open()->present().ranges(), ElementsAre(ByteRange{2, 5})) << "what makes no sense is left out";
}

TEST_F(PartFileTest, DoesNotBelieveAJournalWithoutItsPart) {
  interrupted_run();
  std::filesystem::remove(target_ + ".wormhole-part");
  EXPECT_EQ(open()->present().size(), 0);
  interrupted_run();
  write_text(target_ + ".wormhole-part", "short");
  EXPECT_EQ(open()->present().size(), 0);
}

TEST_F(PartFileTest, IsFilledByOneProcessAtATime) {
  const auto part = open();
  EXPECT_THAT(PartFile::open(target_, kIdentity), FailsWith(ErrorCode::kBusy));
}

TEST_F(PartFileTest, ReplacesAFileOnlyWhenTold) {
  write_text(target_, "old");
  const auto part = open();
  EXPECT_THAT(write(*part, 0, "abcdefghij"), Succeeds());
  EXPECT_THAT(part->finish(/*replace=*/false), FailsWith(ErrorCode::kInvalid));
  EXPECT_EQ(read_text(target_), "old");
  EXPECT_THAT(part->finish(/*replace=*/true), Succeeds());
  EXPECT_EQ(read_text(target_), "abcdefghij");
}

TEST_F(PartFileTest, MayBeEmpty) {
  PartFile::Identity empty = kIdentity;
  empty.size = 0;
  EXPECT_THAT(open(empty)->finish(false), Succeeds());
  EXPECT_EQ(read_text(target_), "");
}

TEST_F(PartFileTest, LeavesNothingWhenDiscarded) {
  interrupted_run();
  open()->discard();
  EXPECT_THAT(files(), IsEmpty());
}

TEST_F(PartFileTest, NamesTheDirectoryThatIsMissing) {
  const auto part = PartFile::open(directory_ / "missing/file", kIdentity);
  EXPECT_THAT(part, FailsWith(ErrorCode::kNotFound));
  EXPECT_THAT(part.error().message, HasSubstr(directory_ / "missing"));
}

TEST_F(PartFileTest, FindsOutAtOnceThatTheDiskIsTooSmall) {
  PartFile::Identity huge = kIdentity;
  huge.size = 1ull << 60;
  const auto part = PartFile::open(target_, huge);
  EXPECT_THAT(part, FailsWith(ErrorCode::kNoSpace));
  EXPECT_THAT(part.error().message, HasSubstr("1152921504606846976 bytes are needed"));
  EXPECT_THAT(files(), IsEmpty());
}

}  // namespace
}  // namespace wormhole
