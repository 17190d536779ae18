# common/wire, common/net and the coordinator
pkg_check_modules(MSGPACK REQUIRED IMPORTED_TARGET msgpack)

vneva_test(wire_codec LABEL unit SOURCES unit/wire_codec.c
  LIBS vneva_wire PkgConfig::MSGPACK cmocka)
vneva_test(net_sockets LABEL unit SOURCES unit/net_sockets.c
  LIBS vneva_net vneva_wire cmocka Threads::Threads)
