// Package peers runs what tenement is compared with, each as a child on a loopback port
// with the settings that are next to this file: connections to tenants are kept, nothing
// is logged, and there is a worker for each core.
package peers

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"text/template"
	"time"

	"tenement/bench/measure"
)

//go:embed nginx.conf haproxy.cfg caddy.json uwsgi.ini proxyd.sh
var files embed.FS

// Proxy is a contestant between clients and tenants.
type Proxy struct {
	Name    string
	Address string
	H2C     string   // where it speaks HTTP/2; often the same address
	Hosts   []string // of its tenants
	PIDs    func() []int
	wake    func(context.Context) error // of all its tenants; nil where they need none
	stop    func() error
}

// CPU is what the proxy has used of processors until now, tenants excluded.
func (p *Proxy) CPU() time.Duration { return measure.CPU(p.PIDs()) }

// Wake has every tenant awake that is to be asked.
func (p *Proxy) Wake(ctx context.Context) error {
	if p.wake == nil {
		return nil
	}
	return p.wake(ctx)
}

// Stop ends a proxy of [StartProxies].
func (p *Proxy) Stop() error { return p.stop() }

// settings are what the files of this directory are filled with.
type settings struct {
	Dir                string // where the proxy may write
	Workers            int
	Port, H2CPort      int
	BackendPort        string
	Hosts              []string
	HostsJSON, MapFile string
}

// peer is how to start one.
type peer struct {
	name    string
	program string // in PATH or its path
	version []string
	config  string // of files; "" for none
	args    func(config string, s settings) []string
	oneport bool // HTTP/2 at the same port
}

// others are the peers that are programs of other people.
func others(caddy string) []peer {
	return []peer{
		{
			name: "nginx", program: "nginx", version: []string{"-v"}, config: "nginx.conf",
			args: func(config string, s settings) []string { return []string{"-p", s.Dir, "-c", config} },
		},
		{
			name: "HAProxy", program: "haproxy", version: []string{"-v"}, config: "haproxy.cfg",
			args: func(config string, _ settings) []string { return []string{"-db", "-q", "-f", config} },
		},
		{
			name: "Caddy", program: caddy, version: []string{"version"}, config: "caddy.json", oneport: true,
			args: func(config string, _ settings) []string { return []string{"run", "--config", config} },
		},
	}
}

// Programs are the paths of what has to be built first.
type Programs struct {
	Caddy        string // or its name in PATH
	ReverseProxy string
}

// StartProxies starts all proxies that are there, for the tenants with the names hosts
// at backend. Those that are not, or do not work, are given to skip.
func StartProxies(ctx context.Context, programs Programs, dir, backend string, hosts []string, skip func(name, why string)) []*Proxy {
	var started []*Proxy
	bare := peer{
		name: "ReverseProxy", program: programs.ReverseProxy, oneport: true,
		args: func(_ string, s settings) []string { return []string{strconv.Itoa(s.Port), s.BackendPort} },
	}
	for _, p := range append(others(programs.Caddy), bare) {
		proxy, err := p.start(ctx, filepath.Join(dir, p.name), backend, hosts)
		if err != nil {
			skip(p.name, err.Error())
			continue
		}
		started = append(started, proxy)
	}
	return started
}

func (p peer) start(ctx context.Context, dir, backend string, hosts []string) (*Proxy, error) {
	program, err := exec.LookPath(p.program)
	if err != nil {
		return nil, err
	}
	s, err := newSettings(dir, backend, hosts)
	if err != nil {
		return nil, err
	}
	config, err := p.write(s)
	if err != nil {
		return nil, err
	}
	child, err := Start(Command{
		Args: append([]string{program}, p.args(config, s)...), Dir: dir,
		Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir},
	})
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(s.Port)
	if err := child.answers(ctx, address, hosts[0]); err != nil {
		return nil, errors.Join(err, child.Kill())
	}
	tree := measure.Tree(child.PID)
	proxy := &Proxy{
		Name: p.name, Address: address, H2C: address, Hosts: hosts, stop: child.Stop,
		PIDs: func() []int { return tree },
	}
	if !p.oneport {
		proxy.H2C = "127.0.0.1:" + strconv.Itoa(s.H2CPort)
	}
	return proxy, nil
}

func newSettings(dir, backend string, hosts []string) (settings, error) {
	_, port, err := net.SplitHostPort(backend)
	if err != nil {
		return settings{}, err
	}
	s := settings{
		Dir: dir, Workers: runtime.NumCPU(), BackendPort: port, Hosts: hosts,
		HostsJSON: `["` + strings.Join(hosts, `","`) + `"]`, MapFile: filepath.Join(dir, "tenants.map"),
	}
	if s.Port, err = FreePort(); err != nil {
		return s, err
	}
	if s.H2CPort, err = FreePort(); err != nil {
		return s, err
	}
	lines := ""
	for _, host := range hosts {
		lines += host + " tenants\n"
	}
	return s, writeFile(dir, "tenants.map", lines)
}

// write fills in the peer's configuration, and gives its path; "" if it has none.
func (p peer) write(s settings) (string, error) {
	if p.config == "" {
		return "", nil
	}
	pattern, err := template.ParseFS(files, p.config)
	if err != nil {
		return "", err
	}
	var text bytes.Buffer
	if err := pattern.Execute(&text, s); err != nil {
		return "", err
	}
	return filepath.Join(s.Dir, p.config), writeFile(s.Dir, p.config, text.String())
}

var versionPattern = regexp.MustCompile(`v?\d+\.\d[\w.+-]*`)

// Versions asks every program that is there which version it is.
func Versions(ctx context.Context, caddy string) map[string]string {
	versions := make(map[string]string)
	for _, p := range others(caddy) {
		if version := Version(ctx, p.program, p.version...); version != "" {
			versions[p.name] = version
		}
	}
	return versions
}

// Version is the first thing like a version that a program prints; "" if it does not.
func Version(ctx context.Context, program string, args ...string) string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		return ""
	}
	return versionPattern.FindString(string(out))
}

// Commit names what is checked out at root, and says if files differ from it; "" if git
// cannot tell.
func Commit(ctx context.Context, root string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", root, "describe", "--always", "--dirty").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// Hosts are the names of n tenants below domain.
func Hosts(n int, domain string) []string {
	hosts := make([]string, n)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("t%d.%s", i, domain)
	}
	return hosts
}
