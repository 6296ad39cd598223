package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tenement/bench/measure"
	"tenement/bench/peers"
	"tenement/bench/report"
	"tenement/bench/tenant"
)

// options are what a run was asked for.
type options struct {
	suites  string // with commas; "" = all
	quick   bool
	results string
	root    string // of the repository
	log     io.Writer
}

// bench is what the suites of a run share.
type bench struct {
	quick    bool
	dir      string // for everything that is written; its path names what was started
	ten      string // paths of programs
	static   string
	programs peers.Programs
	tenants  []tenant.Program
	outcomes report.Outcomes
	log      io.Writer
}

// suite measures into a section of the report. What it cannot measure it skips there by
// name; an error ends the suite.
type suite struct {
	name, title string
	run         func(context.Context, *bench, *report.Suite) error
}

var suites = []suite{
	{"proxy", "Proxy", proxySuite},
	{"wake", "Wake", wakeSuite},
	{"herd", "Herd", herdSuite},
	{"density", "Density", densitySuite},
	{"sleep", "Sleep and restart", sleepSuite},
	{"operator", "The operator's side", operatorSuite},
}

// run measures, writes the report even if a suite failed, and gives its path.
func run(ctx context.Context, o options) (string, error) {
	chosen, err := choose(o.suites)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "tenbench")
	if err != nil {
		return "", err
	}
	// Tenants, who are nobody, look for their programs in it.
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	b := &bench{quick: o.quick, dir: dir, outcomes: report.Outcomes{}, log: o.log}
	r := &report.Report{Started: time.Now(), Quick: o.quick, Machine: measure.Machine()}
	failed := b.penned(ctx, o, r, chosen)
	failed = errors.Join(failed, os.RemoveAll(dir))
	r.Goals, r.Took = b.outcomes.Judge(), time.Since(r.Started)
	path, err := write(o.results, r)
	return path, errors.Join(failed, err)
}

func choose(names string) ([]suite, error) {
	if names == "" {
		return suites, nil
	}
	var chosen []suite
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no suite %q", name)
		}
		chosen = append(chosen, suites[i])
	}
	return chosen, nil
}

// penned measures, and leaves no process.
func (b *bench) penned(ctx context.Context, o options, r *report.Report, chosen []suite) (err error) {
	p, err := enter(b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.empty()) }()
	return b.measure(ctx, o, r, chosen)
}

func (b *bench) measure(ctx context.Context, o options, r *report.Report, chosen []suite) error {
	b.say("building")
	if err := b.build(ctx, o.root); err != nil {
		return err
	}
	setup := &report.Suite{}
	if os.Geteuid() != 0 {
		setup.Skip("isolation namespace and sandbox", "only root's daemon is measured with them")
	}
	var err error
	b.tenants, err = tenant.Install(ctx, filepath.Join(b.dir, "apps"), b.static, setup.Skip)
	if err != nil {
		return err
	}
	r.Versions = b.versions(ctx, o.root)
	var failed error
	for _, s := range chosen {
		if ctx.Err() != nil {
			return errors.Join(failed, ctx.Err())
		}
		section := &report.Suite{Name: s.name, Title: s.title, Skipped: setup.Skipped}
		r.Suites = append(r.Suites, section)
		b.say("suite %s", s.name)
		begin := time.Now()
		if err := s.run(ctx, b, section); err != nil {
			section.Fail("%v", err)
			failed = errors.Join(failed, fmt.Errorf("suite %s: %w", s.name, err))
		}
		section.Took = time.Since(begin)
	}
	return failed
}

// build compiles what is measured, as it is released.
func (b *bench) build(ctx context.Context, root string) error {
	b.ten, b.static = filepath.Join(b.dir, "ten"), filepath.Join(b.dir, "static")
	b.programs = peers.Programs{Caddy: "caddy", ReverseProxy: filepath.Join(b.dir, "reverseproxy")}
	// bench/peers/install.sh leaves the newest one here.
	if own, err := filepath.Abs(filepath.Join(root, ".cache", "bin", "caddy")); err == nil && exists(own) {
		b.programs.Caddy = own
	}
	for path, source := range map[string]string{
		b.ten: "./cmd/ten", b.static: "./bench/tenant/static", b.programs.ReverseProxy: "./bench/peers/reverseproxy",
	} {
		compile := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", path, source)
		compile.Dir, compile.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := compile.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", source, err, out)
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (b *bench) versions(ctx context.Context, root string) map[string]string {
	versions := peers.Versions(ctx, b.programs.Caddy)
	versions["Go"] = peers.Version(ctx, "go", "version")
	versions["tenement"] = peers.Commit(ctx, root)
	for _, p := range b.tenants {
		if len(p.Version) > 0 {
			versions[p.Name] = peers.Version(ctx, p.Version[0], p.Version[1:]...)
		}
	}
	return versions
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// tenantNamed is one of the programs; ok is false if it is not here.
func (b *bench) tenantNamed(name string) (tenant.Program, bool) {
	i := slices.IndexFunc(b.tenants, func(p tenant.Program) bool { return p.Name == name })
	if i < 0 {
		return tenant.Program{}, false
	}
	return b.tenants[i], true
}

// degrees are the isolations that this user's daemon is measured with. An ordinary user's
// may have more, in namespaces of its own, but what that takes is another matter.
func degrees() []string {
	if os.Geteuid() == 0 {
		return []string{"process", "namespace", "sandbox"}
	}
	return []string{"process"}
}

// isolation is the default of a user such as this one.
func isolation() string { return degrees()[min(1, len(degrees())-1)] }

// pick is full in a whole run and small in a smoke run.
func pick[T any](b *bench, full, small T) T {
	if b.quick {
		return small
	}
	return full
}

// write writes the report under the time of its start.
func write(dir string, r *report.Report) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text, err := r.JSON()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, r.Started.UTC().Format("2006-01-02T150405"))
	if err := os.WriteFile(path+".json", append(text, '\n'), 0o644); err != nil {
		return "", err
	}
	return path + ".md", os.WriteFile(path+".md", []byte(r.Markdown()), 0o644)
}
