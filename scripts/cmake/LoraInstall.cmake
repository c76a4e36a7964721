# A prefix that works after being moved: the executable finds the engine next to itself
# (../lib/lora/), and the engine remembers where LibTorch is.
include(GNUInstallDirs)
install(TARGETS lora RUNTIME DESTINATION "${CMAKE_INSTALL_BINDIR}")
if(LORA_BUILD_ENGINE)
  install(TARGETS lora_engine LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}/lora")
endif()
install(FILES README.md LICENSE CHANGELOG.md DESTINATION "${CMAKE_INSTALL_DOCDIR}")
