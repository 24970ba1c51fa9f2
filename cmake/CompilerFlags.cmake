# Flags of our own code; they do not reach foreign headers, which are SYSTEM includes.

add_compile_options(-Wall -Wextra -Wno-missing-field-initializers -Wpedantic -Wshadow)

# `perf record -g` walks frame pointers, in every build type.
add_compile_options(-fno-omit-frame-pointer)

if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  add_compile_options(-Wthread-safety)
endif()

if(WORMHOLE_WERROR)
  add_compile_options(-Werror)
endif()

if(WORMHOLE_SANITIZE STREQUAL "address")
  set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all)
elseif(WORMHOLE_SANITIZE STREQUAL "thread")
  set(sanitizers -fsanitize=thread)
elseif(WORMHOLE_SANITIZE)
  message(FATAL_ERROR "WORMHOLE_SANITIZE=${WORMHOLE_SANITIZE}: expected address or thread")
endif()
if(WORMHOLE_FUZZ)
  list(APPEND sanitizers -fsanitize=fuzzer-no-link)
endif()
if(sanitizers)
  add_compile_options(${sanitizers})
  add_link_options(${sanitizers})
endif()
