#!/bin/bash
# Started by systemd-socket-activate with the first connection: starts a program that
# knows nothing of passed sockets, waits for its port, and becomes systemd-socket-proxyd,
# which has the socket. Units do the same with Requires= and After=.
PORT=$1
export PORT
shift
LISTEN_FDS='' LISTEN_PID='' "$@" 3<&- &
until (exec 9<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; do
	kill -0 $! || exit 1
	sleep 0.001
done
exec /lib/systemd/systemd-socket-proxyd "127.0.0.1:$PORT"
