# `cmake --install`: the program, the helper that mount(8) looks for, the man pages.
include(GNUInstallDirs)

install(TARGETS wormhole RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

# mount(8) runs /sbin/mount.<type>, whatever the prefix. The program is the helper when it is called so.
set(WORMHOLE_MOUNT_HELPER_DIR /sbin CACHE PATH "Where mount(8) looks for mount.wormhole")
install(CODE "
  set(program \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_BINDIR}/wormhole\")
  set(helper \"\$ENV{DESTDIR}${WORMHOLE_MOUNT_HELPER_DIR}/mount.wormhole\")
  message(STATUS \"Installing: \${helper} -> \${program}\")
  file(MAKE_DIRECTORY \"\$ENV{DESTDIR}${WORMHOLE_MOUNT_HELPER_DIR}\")
  file(CREATE_LINK \"\${program}\" \"\${helper}\" RESULT error SYMBOLIC)
  if(error)
    message(WARNING \"\${helper}: \${error}; `mount -t wormhole` needs it\")
  endif()")

foreach(section 1 8)
  file(GLOB pages CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.${section})
  if(pages)
    install(FILES ${pages} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
  endif()
endforeach()
