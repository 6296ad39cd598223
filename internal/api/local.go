package api

import (
	"context"
	"errors"
	"net"
)

type uidKey struct{}

// WithLocalUser marks everything that arrives on a connection as sent by the user
// uid of this machine. Root and the daemon's own user are admins. It is for
// http.Server.ConnContext, with the uid from [PeerUID].
func WithLocalUser(ctx context.Context, uid int) context.Context {
	return context.WithValue(ctx, uidKey{}, uid)
}

func localUser(ctx context.Context) (uid int, ok bool) {
	uid, ok = ctx.Value(uidKey{}).(int)
	return uid, ok
}

var errNotUnix = errors.New("not a unix socket")

// PeerUID is the user at the other end of a unix socket, as the kernel noted it
// when the connection was made (unix(7), SO_PEERCRED; on darwin LOCAL_PEERCRED).
func PeerUID(conn net.Conn) (int, error) {
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, errNotUnix
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var uid int
	var credErr error
	if err := raw.Control(func(fd uintptr) { uid, credErr = peerUID(int(fd)) }); err != nil {
		return 0, err
	}
	return uid, credErr
}
