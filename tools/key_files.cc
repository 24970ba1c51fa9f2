#include "tools/key_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

#include "base/file_descriptor.h"
#include "tools/interrupt.h"

namespace wormhole {
namespace {

constexpr size_t kMostKeyBytes = 16 << 10;

// On the terminal, unseen.
Result<std::string> ask_password(const std::string& what) {
  const FileDescriptor terminal(::open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY));
  if (!terminal)
    return fail(ErrorCode::kInvalid,
                "{} is encrypted, and there is no terminal to ask for its password: give it with "
                "--password-file",
                what);
  termios before{};
  ::tcgetattr(terminal.get(), &before);
  termios unseen = before;
  unseen.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  const auto show = [&](const std::string& text) {
    return ::write(terminal.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  };
  show(fmt::format("Password of {}: ", what));
  ::tcsetattr(terminal.get(), TCSAFLUSH, &unseen);
  std::string word(1024, '\0');
  const ssize_t n = ::read(terminal.get(), word.data(), word.size());
  ::tcsetattr(terminal.get(), TCSAFLUSH, &before);
  show("\n");
  if (interrupted_by() != 0 || n <= 0) return fail(ErrorCode::kCancelled, "no password was given");
  word.resize(static_cast<size_t>(n));
  if (word.ends_with('\n')) word.pop_back();
  return word;
}

}  // namespace

Result<std::string> read_key_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text(kMostKeyBytes, '\0');
  if (!in) return fail(error_from_errno(errno, "open " + path));
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return fail(error_from_errno(errno, "read " + path));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

Result<SecretKey> read_secret_key(const std::string& path, const std::string& password_file) {
  const auto text = read_key_file(path);
  if (!text) return fail(text.error());
  auto key = SecretKey::parse(*text, [&]() -> Result<std::string> {
    if (password_file.empty()) return ask_password(path);
    auto word = read_key_file(password_file);
    if (!word) return word;
    word->resize(std::min(word->find_first_of("\r\n"), word->size()));
    return word;
  });
  if (!key) return fail(key.error().code, "{}: {}", path, key.error().message);
  return key;
}

Result<PublicKey> read_public_key(const std::string& given) {
  if (auto key = PublicKey::parse(given)) return key;
  const auto text = read_key_file(given);
  if (!text) return fail(text.error());
  auto key = PublicKey::parse(*text);
  if (!key) return fail(key.error().code, "{}: {}", given, key.error().message);
  return key;
}

}  // namespace wormhole
