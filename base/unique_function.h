// A move-only callable that lives inside the object: what crosses a mailbox owns its buffers and replies, and costs no
// allocation. A closure that does not fit is a compile error; capture less or raise the size where it is declared.
//
// Thread: as the closure inside.
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace wormhole {

template <typename Signature, size_t kCapacity = 120>
class UniqueFunction;

template <typename R, typename... Args, size_t kCapacity>
class UniqueFunction<R(Args...), kCapacity> {
 public:
  UniqueFunction() = default;
  UniqueFunction(std::nullptr_t) {}  // NOLINT(google-explicit-constructor): as std::function

  template <typename F, typename = std::enable_if_t<!std::is_same_v<std::decay_t<F>, UniqueFunction>>>
  UniqueFunction(F&& f) {  // NOLINT(google-explicit-constructor): as std::function
    using Closure = std::decay_t<F>;
    static_assert(sizeof(Closure) <= kCapacity, "the closure does not fit");
    static_assert(alignof(Closure) <= alignof(std::max_align_t));
    // Some value types forget to say noexcept on their moves; one that really throws ends the program.
    static_assert(std::is_move_constructible_v<Closure>);
    ::new (storage_) Closure(std::forward<F>(f));
    ops_ = &kOps<Closure>;
  }

  UniqueFunction(UniqueFunction&& other) noexcept { take(other); }
  UniqueFunction& operator=(UniqueFunction&& other) noexcept {
    if (this != &other) {
      reset();
      take(other);
    }
    return *this;
  }
  UniqueFunction(const UniqueFunction&) = delete;
  UniqueFunction& operator=(const UniqueFunction&) = delete;
  ~UniqueFunction() { reset(); }

  explicit operator bool() const { return ops_ != nullptr; }
  // REQUIRES: not empty.
  R operator()(Args... args) { return ops_->call(storage_, std::forward<Args>(args)...); }

 private:
  struct Ops {
    R (*call)(void*, Args&&...);
    void (*move)(void* from, void* to);  // leaves `from` destroyed
    void (*destroy)(void*);
  };

  template <typename Closure>
  static constexpr Ops kOps{
      [](void* s, Args&&... args) -> R { return (*static_cast<Closure*>(s))(std::forward<Args>(args)...); },
      [](void* from, void* to) {
        ::new (to) Closure(std::move(*static_cast<Closure*>(from)));
        static_cast<Closure*>(from)->~Closure();
      },
      [](void* s) { static_cast<Closure*>(s)->~Closure(); }};

  void take(UniqueFunction& other) {
    ops_ = other.ops_;
    if (ops_ != nullptr) ops_->move(other.storage_, storage_);
    other.ops_ = nullptr;
  }
  void reset() {
    if (ops_ != nullptr) ops_->destroy(storage_);
    ops_ = nullptr;
  }

  alignas(std::max_align_t) std::byte storage_[kCapacity];
  const Ops* ops_ = nullptr;
};

}  // namespace wormhole
