package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	sd "github.com/coreos/go-systemd/v22/daemon"

	"tenement"
	"tenement/internal/api"
)

// FrontName is what the unit of the front's socket calls it (systemd.socket(5),
// FileDescriptorName=).
const FrontName = "http"

// openFront gives the socket that the service manager holds for us, or else binds the
// configured address. The passed one wins where they differ: it is what clients
// reach, and binding a second one would leave theirs unanswered.
func (d *daemon) openFront(ctx context.Context) (net.Listener, error) {
	front, err := passedFront()
	if err != nil {
		return nil, err
	}
	if front == nil {
		front, err = new(net.ListenConfig).Listen(ctx, "tcp", d.Config.Listen)
		if err != nil {
			return nil, &tenement.Error{
				Code: tenement.CodeUnavailable, Op: "listen on " + d.Config.Listen, Err: err,
				Hint: "end what uses that address, or choose another with --listen",
			}
		}
		return front, nil
	}
	if !sameAddress(d.Config.Listen, front.Addr()) {
		d.Log.Warn("serving on the socket that was passed, not on the configured address",
			"address", front.Addr(), "listen", d.Config.Listen, "hint", "bring the socket unit up to date with: ten install")
	}
	return front, nil
}

// passedFront is the front's listener of those passed by sd_listen_fds(3); nil when
// none were. None is inherited by a tenant, nor is word of it: they are closed on
// exec and their variables are unset, so that it finds each listener only once. One
// that we do not know is an error, since nobody would ever answer on it.
func passedFront() (front net.Listener, err error) {
	files := activation.Files(true)
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
		if err != nil && front != nil {
			err = errors.Join(err, front.Close())
			front = nil
		}
	}()
	for _, f := range files {
		if f.Name() != FrontName || front != nil {
			return front, badSocket(fmt.Errorf("there is no use for the one called %q", f.Name()))
		}
		if front, err = net.FileListener(f); err != nil {
			return nil, badSocket(err)
		}
	}
	return front, nil
}

func badSocket(err error) error {
	return &tenement.Error{
		Code: tenement.CodeInvalid, Op: "take the sockets that were passed", Err: err,
		Hint: "the socket unit needs one ListenStream= and FileDescriptorName=" + FrontName + "; ten install writes such a unit",
	}
}

// sameAddress reports whether listening on the configured address gives actual.
func sameAddress(configured string, actual net.Addr) bool {
	want, err := net.ResolveTCPAddr("tcp", configured)
	got, ok := actual.(*net.TCPAddr)
	if err != nil || !ok || want.Port != got.Port {
		return false
	}
	return want.IP.Equal(got.IP) || (want.IP == nil || want.IP.IsUnspecified()) && got.IP.IsUnspecified()
}

// notify tells the service manager, if there is one, assignments of sd_notify(3) in
// one message. A manager that cannot be told stops nothing.
func (d *daemon) notify(assignments ...string) {
	if _, err := sd.SdNotify(false, strings.Join(assignments, "\n")); err != nil {
		d.Log.Warn("the service manager could not be told", "state", assignments, "error", err)
	}
}

// watch tells the service manager that the daemon serves and then, until ctx ends, as
// often as its watchdog asks for, that it lives; at the end, that it stops. From when
// another daemon serves, that one does so.
func (d *daemon) watch(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		select {
		case <-d.upgraded:
		case <-ctx.Done():
		}
	}()
	d.notify(sd.SdNotifyReady, "STATUS=Listening on "+d.front.Addr().String())
	defer func() {
		if !d.isUpgraded() {
			d.notify(sd.SdNotifyStopping, "STATUS=Finishing requests and putting instances to sleep")
		}
	}()
	limit, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.Log.Warn("the watchdog's time is not understood", "error", err)
	}
	if limit <= 0 {
		<-ctx.Done()
		return nil
	}
	client, err := api.NewClient(api.Target{Socket: SocketPath(d.Config.DataDir)})
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	beat(ctx, limit/2, func() { d.prove(ctx, client) }, func() { d.notify(sd.SdNotifyWatchdog) })
	return nil
}

// beat calls tell at once and every so often, each time after prove has returned. A
// prove that hangs is left to: the silence is what the watchdog listens for, and one
// that is only slow still has as long again before the limit is reached.
func beat(ctx context.Context, every time.Duration, prove, tell func()) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		prove()
		tell()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// prove returns when a request to the daemon itself went all the way to the registry
// and the supervisor's lock could be had. An error is an answer too, and proves life:
// a restart mends no disk that is full.
func (d *daemon) prove(ctx context.Context, client *api.Client) {
	if _, err := client.DaemonHealth(ctx); err != nil && ctx.Err() == nil {
		d.Log.Warn("the daemon finds itself unwell", "error", err)
	}
	d.tenancy.Load().supervisor.Observe(tenement.InstanceID{})
}
