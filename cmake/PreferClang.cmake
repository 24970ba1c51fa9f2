# The dev preset's compiler: clang where there is one, for -Wthread-safety; else the default.
find_program(WORMHOLE_CLANGXX clang++)
if(WORMHOLE_CLANGXX)
  set(CMAKE_CXX_COMPILER ${WORMHOLE_CLANGXX})
endif()
