package daemon

import (
	"context"
	"net"
	"net/http"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/proxy"
	"tenement/internal/route"
)

// openAdmin listens where nothing but the management API answers, or takes that listener
// over from the daemon before; nil where none is configured.
func (d *daemon) openAdmin(ctx context.Context, before *predecessor) (net.Listener, error) {
	address := d.Config.AdminListen
	if address == "" {
		return nil, nil //nolint:nilnil // the usual case
	}
	if before != nil && before.AdminListen == address {
		return net.FileListener(before.admin)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "listen on " + address, Err: err,
			Hint: "end what uses that address, or choose another with --admin-listen",
		}
	}
	return l, nil
}

// serveAPI answers the management API for whoever has the instances now.
func (d *daemon) serveAPI(w http.ResponseWriter, r *http.Request) {
	d.tenancy.Load().serveAPI(w, proxy.FromClient(r, d.trustedProxies()))
}

// newAdminServer serves the dashboard, and with it the management API, on the listener
// that they have for themselves.
func (d *daemon) newAdminServer(pages http.Handler) *proxy.Server {
	return proxy.NewServer(proxy.New(proxy.Config{
		Lookup:  func(string, string) route.Target { return route.Target{Kind: route.Admin} },
		Admin:   api.OnlyHosts(pages, d.adminNames),
		Leaving: d.isUpgraded,
		Log:     d.Log,
	}))
}

// adminNames are what the management API is called.
func (d *daemon) adminNames() []string {
	c := d.config()
	host, _, _ := net.SplitHostPort(c.AdminListen) // "" when it says none
	return []string{c.AdminHost, host}
}
