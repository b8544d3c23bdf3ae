# Install rules, package config and pkg-config file, all of them relocatable.
# Included by the top file once bulkhead_shared and bulkhead_static exist.
include(${CMAKE_CURRENT_LIST_DIR}/operators.cmake)

option(BULKHEAD_INSTALL "Install rules" ${PROJECT_IS_TOP_LEVEL})
if(NOT BULKHEAD_INSTALL)
  return()
endif()

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS bulkhead_shared bulkhead_static EXPORT BulkheadTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_SOURCE_DIR}/include/bulkhead.h ${PROJECT_SOURCE_DIR}/include/bulkhead-new-delete.h
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
if(EXISTS ${PROJECT_SOURCE_DIR}/bulkhead)
  install(PROGRAMS ${PROJECT_SOURCE_DIR}/bulkhead DESTINATION ${CMAKE_INSTALL_BINDIR})
  install(PROGRAMS ${PROJECT_SOURCE_DIR}/tools/symbolize.py ${PROJECT_SOURCE_DIR}/tools/doctor.py DESTINATION share/bulkhead)
  install(FILES ${PROJECT_SOURCE_DIR}/tools/doctor_bugs.py DESTINATION share/bulkhead)
endif()

set(BULKHEAD_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/Bulkhead)
install(EXPORT BulkheadTargets NAMESPACE Bulkhead:: DESTINATION ${BULKHEAD_CMAKE_DIR})
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/BulkheadConfig.cmake.in
  ${PROJECT_BINARY_DIR}/BulkheadConfig.cmake INSTALL_DESTINATION ${BULKHEAD_CMAKE_DIR})
# Before 1.0 every minor version may change the interface.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/BulkheadConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/BulkheadConfig.cmake ${PROJECT_BINARY_DIR}/BulkheadConfigVersion.cmake
  DESTINATION ${BULKHEAD_CMAKE_DIR})

# The .pc file finds the prefix from its own place: the way up depends on how
# deep the library directory is (lib, lib64, lib/x86_64-linux-gnu).
file(RELATIVE_PATH BULKHEAD_PC_UP ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" BULKHEAD_PC_UP "${BULKHEAD_PC_UP}")
foreach(dir INCLUDEDIR LIBDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${dir}}")
    set(BULKHEAD_PC_${dir} "${CMAKE_INSTALL_${dir}}")
  else()
    set(BULKHEAD_PC_${dir} "\${prefix}/${CMAKE_INSTALL_${dir}}")
  endif()
endforeach()
configure_file(${CMAKE_CURRENT_LIST_DIR}/bulkhead.pc.in ${PROJECT_BINARY_DIR}/bulkhead.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/bulkhead.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
