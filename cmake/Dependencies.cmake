# Every foreign library as a target deps::<name>. Which folder may use which is said in the folders.

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

# Where tools/setup puts what the distribution has only in a version that is too old.
if(DEFINED ENV{WORMHOLE_DEPS})
  set(wormhole_deps_default $ENV{WORMHOLE_DEPS})
else()
  set(wormhole_deps_default /opt/wormhole-deps)
endif()
set(WORMHOLE_DEPS ${wormhole_deps_default} CACHE PATH "Prefix of the libraries built by tools/setup")
set(ENV{PKG_CONFIG_PATH} "${WORMHOLE_DEPS}/lib/pkgconfig:$ENV{PKG_CONFIG_PATH}")

# deps::<name> from a pkg-config module.
function(wormhole_pkg_config name module)
  pkg_check_modules(${name} IMPORTED_TARGET GLOBAL ${module})
  if(NOT ${name}_FOUND)
    message(FATAL_ERROR "'${module}' not found. `tools/setup` (as root) installs what wormhole is built from.")
  endif()
  add_library(deps::${name} ALIAS PkgConfig::${name})
endfunction()

# deps::<name> from a package that brings its own CMake targets.
function(wormhole_cmake_package name package target)
  find_package(${package} CONFIG QUIET GLOBAL)
  if(NOT TARGET ${target})
    message(FATAL_ERROR "'${package}' not found. `tools/setup` (as root) installs what wormhole is built from.")
  endif()
  add_library(deps::${name} INTERFACE IMPORTED GLOBAL)
  target_link_libraries(deps::${name} INTERFACE ${target})
endfunction()

wormhole_pkg_config(curl libcurl>=8.14)
wormhole_pkg_config(uring liburing>=2.3)
wormhole_pkg_config(lmdb lmdb)
wormhole_pkg_config(xxhash libxxhash)
wormhole_pkg_config(blake3 libblake3)
wormhole_pkg_config(zstd libzstd)
wormhole_pkg_config(sodium libsodium)
wormhole_pkg_config(xml2 libxml-2.0)
wormhole_pkg_config(microhttpd libmicrohttpd)
wormhole_pkg_config(gnutls gnutls)  # SHA-256; libcurl brings it along
wormhole_cmake_package(spdlog spdlog spdlog::spdlog)  # brings fmt
wormhole_cmake_package(cli11 CLI11 CLI11::CLI11)
wormhole_cmake_package(expected tl-expected tl::expected)
wormhole_cmake_package(json nlohmann_json nlohmann_json::nlohmann_json)

# libfuse: passthrough came with 3.17. The copy in the private prefix is a static library, so that the
# installed program does not need the prefix; a static library brings its own needs along.
wormhole_pkg_config(fuse3 fuse3>=3.17)
if(EXISTS ${WORMHOLE_DEPS}/lib/libfuse3.a)
  list(REMOVE_ITEM fuse3_STATIC_LIBRARIES fuse3)
  target_link_libraries(PkgConfig::fuse3 INTERFACE ${fuse3_STATIC_LIBRARIES} Threads::Threads)
endif()

if(WORMHOLE_TESTS)
  find_package(GTest CONFIG QUIET)
  if(NOT TARGET GTest::gmock_main)
    message(STATUS "wormhole: without tests, for want of GoogleTest (`tools/setup --test` installs it)")
    set(WORMHOLE_TESTS OFF)
  endif()
endif()

message(STATUS "wormhole: libfuse ${fuse3_VERSION}, libcurl ${curl_VERSION}, liburing ${uring_VERSION}")
