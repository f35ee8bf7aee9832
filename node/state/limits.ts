/** Limits of the state directory and of sockets. */

/** Bytes of the path of a socket: sun_path has 108 with its terminating zero (unix(7)). */
export const MAX_SOCKET_PATH_BYTES = 107
