package runtimetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/runtime"
)

// As a program's first argument these make a test binary be the daemon that will be
// killed, or its machine's init, which reaps what the daemon leaves.
const (
	daemonArg = "daemon-program"
	initArg   = "init-program"
)

// formerDaemon is what the daemon program is told.
type formerDaemon struct {
	Kind    string
	Dir     string
	DataDir string
	Command []string
	Stuck   bool // its sinks never return
	Ready   tenement.ReadyMode
}

// says is what the daemon program answers once it has started the tenant.
type says struct {
	PID int
	Ref tenement.Ref
}

// DaemonMain must stand beside [TenantMain] in TestMain of a package that runs [Suite]:
// called in a process that is to be the former daemon it does not return.
func DaemonMain(kinds map[string]Opener) {
	if len(os.Args) != 3 {
		return
	}
	var err error
	switch os.Args[1] {
	case daemonArg:
		err = runDaemon(kinds, os.Args[2])
	case initArg:
		err = runInit(os.Args[2])
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, os.Args[1]+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func runDaemon(kinds map[string]Opener, text string) error {
	var f formerDaemon
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return err
	}
	rt, _, err := kinds[f.Kind](f.Dir)
	if err != nil {
		return err
	}
	service := &tenement.Service{Name: "api", DataDir: filepath.Dir(f.DataDir), Egress: egress(), Ready: f.Ready}
	for _, word := range f.Command {
		service.Command = append(service.Command, tenement.MustTemplate(word))
	}
	s := runtime.Spec{
		Instance: tenement.InstanceID{Service: "api", Name: "alice"}, Service: service, DataDir: f.DataDir,
		Stdout: &Lines{}, Stderr: &Lines{},
	}
	if s.UID, err = OwnUID(f.Kind, f.DataDir); err != nil {
		return err
	}
	if f.Stuck {
		s.Stdout, s.Stderr = stuck{}, stuck{}
	}
	p, err := rt.Start(context.Background(), s)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(says{os.Getpid(), p.Ref()}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin) // until the test is over, if it does not kill us
	return errors.Join(err, p.Kill())
}

// stuck is a Sink whose disk does not answer.
type stuck struct{}

func (stuck) Take([]byte, bool, bool, func(int)) { select {} }

func runInit(daemon string) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child, err := os.StartProcess(self, []string{self, daemonArg, daemon}, &os.ProcAttr{
		Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return err
	}
	if err := child.Release(); err != nil {
		return err
	}
	for {
		_, err := syscall.Wait4(-1, nil, 0, nil)
		if errors.Is(err, syscall.ECHILD) {
			return nil // all are gone
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// outlived starts a tenant in a daemon of its own, that is killed by kill.
func (b *bench) outlived(f formerDaemon) (_ tenement.Ref, kill func()) {
	b.t.Helper()
	f.Kind, f.Dir, f.DataDir = b.kind, b.dir, b.t.TempDir()
	text, err := json.Marshal(f)
	if err != nil {
		b.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	program := exec.Command(self, initArg, string(text))
	program.Stderr = os.Stderr
	out, err := program.StdoutPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	in, err := program.StdinPipe()
	if err != nil {
		b.t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		b.t.Fatal(err)
	}
	var daemon says
	b.t.Cleanup(func() {
		_ = in.Close()
		if daemon.Ref.PID != 0 && b.t.Failed() {
			_ = syscall.Kill(-daemon.Ref.PID, syscall.SIGKILL) // gone already, unless the test failed
		}
		if err := program.Wait(); err != nil {
			b.t.Errorf("init: %v", err)
		}
	})
	if err := json.NewDecoder(out).Decode(&daemon); err != nil {
		b.t.Fatal(err)
	}
	return daemon.Ref, func() {
		b.t.Helper()
		if err := syscall.Kill(daemon.PID, syscall.SIGKILL); err != nil {
			b.t.Fatal(err)
		}
		Eventually(b.t, "end of the former daemon", func() bool { return errors.Is(syscall.Kill(daemon.PID, 0), syscall.ESRCH) })
	}
}
