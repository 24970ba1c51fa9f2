# A folder of sources is a static library that the others see as "<folder>/header.h".
#
#   wormhole_library(<folder> SOURCES <file>... [PUBLIC <target>...] [PRIVATE <target>...])
#
# To make the arrows between folders binding, a target hands out an include directory that holds its own
# folder and nothing else (build/include/<folder>/<folder> -> the sources). A folder that is not linked
# cannot be included; a foreign library that is linked PRIVATE stays behind the folder's door.

function(wormhole_include_directory target scope folder)
  set(directory ${PROJECT_BINARY_DIR}/include/${folder})
  file(MAKE_DIRECTORY ${directory})
  file(CREATE_LINK ${PROJECT_SOURCE_DIR}/${folder} ${directory}/${folder} SYMBOLIC)
  target_include_directories(${target} ${scope} ${directory})
  # Debuggers and logs should name the file, not the link.
  target_compile_options(${target} ${scope} "-ffile-prefix-map=${directory}/${folder}=${PROJECT_SOURCE_DIR}/${folder}")
endfunction()

function(wormhole_library folder)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;PUBLIC;PRIVATE")
  set(target wormhole_${folder})
  add_library(${target} STATIC ${arg_SOURCES})
  wormhole_include_directory(${target} PUBLIC ${folder})
  target_link_libraries(${target} PUBLIC ${arg_PUBLIC} PRIVATE ${arg_PRIVATE})
endfunction()
