package escape

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tenement"
	"tenement/internal/api"
	"tenement/internal/cgroup"
)

// attempt is one row of the table.
type attempt struct {
	name string
	try  func(*world) verdict

	// needs is the capability without which not even root achieves it: 0 is none. Where
	// the tests lack it, `process` shows nothing.
	needs int
}

// verdict is what came of an attempt, as seen from outside of whoever made it.
type verdict string

const (
	stopped  verdict = "stopped"
	succeeds verdict = "**succeeds**"
	untold   verdict = "" // this machine cannot show it
)

// was is the verdict on what was achieved.
func was(achieved bool) verdict {
	if achieved {
		return succeeds
	}
	return stopped
}

// attempts are made one after the other; those that spoil something come last.
var attempts = slices.Concat(onFiles, onDaemon, onProcesses, onNetwork, onKernel, onLimits, onRequests, onLife, onRemoval)

var onFiles = []attempt{
	{name: "read another tenant's file", try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			return w.do(mallory, "read", "path", w.data(id, secretFile)) == w.read(w.data(id, secretFile))
		}))
	}},
	{name: "list another tenant's directory", try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			return strings.Contains(w.do(mallory, "list", "path", w.data(id, "")), secretFile)
		}))
	}},
	{name: "change another tenant's file", try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			w.do(mallory, "append", "path", w.data(id, secretFile), "text", "OWNED")
			return strings.Contains(w.read(w.data(id, secretFile)), "OWNED")
		}))
	}},
	{name: "read it by a symbolic link planted where the service's command points", try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			w.do(mallory, "symlink", "path", w.data(mallory, "state.db"), "target", w.data(id, secretFile))
			must(w.t, w.api.Restart(w.t.Context(), mallory))
			secret := w.read(w.data(id, secretFile))
			return w.do(mallory, "read", "path", w.data(mallory, "state.db")) == secret || w.do(mallory, "read", "path", w.data(id, secretFile)) == secret
		}))
	}},
	{name: "read it by a hard link", try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			w.do(mallory, "hardlink", "path", w.data(mallory, "hard"), "target", w.data(id, secretFile))
			return w.do(mallory, "read", "path", w.data(mallory, "hard")) == w.read(w.data(id, secretFile))
		}))
	}},
}

// others are whom mallory is after.
var others = []tenement.InstanceID{alice, bob}

var onDaemon = []attempt{
	{name: "read the daemon's state", try: func(w *world) verdict {
		return was(w.do(mallory, "read", "path", filepath.Join(w.dataDir, ".tenement", "secret")) == w.state ||
			strings.Contains(w.do(mallory, "read", "path", filepath.Join(w.dataDir, ".tenement", "state.db")), "SQLite"))
	}},
	{name: "change the daemon's state", try: func(w *world) verdict {
		w.do(mallory, "append", "path", filepath.Join(w.dataDir, ".tenement", "secret"), "text", "OWNED")
		return was(strings.Contains(w.read(filepath.Join(w.dataDir, ".tenement", "secret")), "OWNED"))
	}},
	{name: "read the configuration and the secrets in it", try: func(w *world) verdict {
		return was(strings.Contains(w.do(mallory, "read", "path", "/srv/etc/tenement.toml"), w.password))
	}},
	{name: "read the daemon's environment", try: func(w *world) verdict {
		return was(strings.Contains(w.do(mallory, "read", "path", proc(w.process.Pid, "environ")), w.environment))
	}},
	{name: "read the daemon's memory", needs: unix.CAP_SYS_PTRACE, try: func(w *world) verdict {
		return was(strings.Contains(w.do(mallory, "stack", "pid", strconv.Itoa(w.process.Pid)), w.environment))
	}},
	{name: "use a descriptor that the daemon was left with", try: func(w *world) verdict {
		return was(strings.Contains(w.do(mallory, "descriptors"), w.descriptor))
	}},
	{name: "type on the operator's terminal", try: func(w *world) verdict {
		w.do(mallory, "terminal", "text", "OWNED")
		return was(eventually(func() bool { return strings.Contains(w.onTerminal(), "OWNED") }))
	}},
	{name: "end the process that keeps everybody's namespaces", try: func(w *world) verdict {
		if w.user == nil { // there is none
			return untold
		}
		before := w.who(alice).PID
		w.do(mallory, "signal", "pid", "1", "signal", strconv.Itoa(int(unix.SIGKILL)))
		return was(w.who(alice).PID != before)
	}},
	{name: "signal the daemon", try: func(w *world) verdict {
		w.do(mallory, "signal", "pid", strconv.Itoa(w.process.Pid), "signal", strconv.Itoa(int(unix.SIGHUP)))
		return was(eventually(func() bool { return strings.Contains(w.said.String(), "configuration reloaded") }))
	}},
	{name: "command the daemon by its socket", try: func(w *world) verdict {
		got := w.do(mallory, "ask", "network", "unix", "address", filepath.Join(w.dataDir, ".tenement", "ten.sock"), "text", httpGet("/api/instances"))
		return was(strings.Contains(got, bob.String()))
	}},
}

func proc(pid int, file string) string { return filepath.Join("/proc", strconv.Itoa(pid), file) }

func httpGet(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
}

var onProcesses = []attempt{
	{name: "see another tenant's process", try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			pid := w.who(id).Seen
			return strings.Contains(w.do(mallory, "read", "path", proc(pid, "cmdline")), hostileArg) ||
				slices.Contains(strings.Fields(w.do(mallory, "list", "path", "/proc")), strconv.Itoa(pid)) && w.level != tenement.IsolationSandbox
		}))
	}},
	{name: "see which files another tenant has locked", try: func(w *world) verdict {
		return was(slices.Contains(strings.Fields(w.do(mallory, "read", "path", "/proc/locks")), strconv.Itoa(w.who(bob).Seen)))
	}},
	{name: "read another tenant's environment", try: func(w *world) verdict {
		return was(strings.Contains(w.do(mallory, "read", "path", proc(w.who(bob).Seen, "environ")), w.password))
	}},
	{name: "read another tenant's memory", needs: unix.CAP_SYS_PTRACE, try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			victim := w.who(id)
			return w.do(mallory, "vmread", "pid", strconv.Itoa(victim.Seen), "address", strconv.FormatUint(victim.Address, 10)) == victim.Secret
		}))
	}},
	{name: "change another tenant's memory as a debugger", needs: unix.CAP_SYS_PTRACE, try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			victim := w.who(id)
			w.do(mallory, "poke", "pid", strconv.Itoa(victim.Seen), "address", strconv.FormatUint(victim.Address, 10))
			return strings.Contains(w.who(id).Secret, poked)
		}))
	}},
	{name: "signal another tenant", try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			victim := w.who(id)
			w.do(mallory, "signal", "pid", strconv.Itoa(victim.Seen), "signal", strconv.Itoa(int(unix.SIGUSR1)))
			return eventually(func() bool { return w.who(id).Signals != victim.Signals })
		}))
	}},
}

var onNetwork = []attempt{
	{name: "connect to another tenant's port", try: func(w *world) verdict {
		return was(slices.ContainsFunc(others, func(id tenement.InstanceID) bool {
			args := []string{"network", "tcp", "text", httpGet("/me"), "address", "127.0.0.1:" + strconv.Itoa(w.port(id))}
			for slot := range 12 { // of the default subnet
				args = append(args, "address", fmt.Sprintf("198.18.0.%d:%d", slot+1, w.port(id)))
			}
			return strings.Contains(w.do(mallory, "ask", args...), w.who(id).Secret)
		}))
	}},
	{name: "connect to the host's loopback services", try: func(w *world) verdict {
		return was(strings.Contains(w.do(mallory, "ask", "network", "tcp", "address", fmt.Sprintf("127.0.0.1:%d", hostPort), "address", fmt.Sprintf("[::1]:%d", hostPort)), hostSecret))
	}},
	{name: "connect to the host's services on other addresses", try: func(w *world) verdict {
		return was(strings.Contains(w.do(mallory, "ask", "network", "tcp", "address", fmt.Sprintf("%s:%d", machineAddress, hostPort)), hostSecret))
	}},
	{name: "connect to the host's abstract unix sockets", try: func(w *world) verdict {
		return was(strings.Contains(w.do(mallory, "ask", "network", "unix", "address", hostSocket), hostSecret))
	}},
	{name: "read the metadata address", try: func(w *world) verdict {
		return was(strings.Contains(w.do(mallory, "ask", "network", "tcp", "address", metadataAddress+":80"), hostSecret))
	}},
	{name: "squat a port or an abstract socket of the host", try: func(w *world) verdict {
		squatted := "@tenement-escape-squatted-" + string(w.level)
		address := w.do(mallory, "listen", "network", "tcp", "address", "127.0.0.1:0")
		w.do(mallory, "listen", "network", "unix", "address", squatted)
		return was(strings.Contains(askOne("tcp", address, "")+askOne("unix", squatted, ""), greeting))
	}},
	{name: "squat the port of a tenant that sleeps", try: func(w *world) verdict {
		port := w.port(alice)
		w.stop(alice)
		for n := range 8 {
			w.do(mallory, "listen", "network", "tcp", "address", "127.0.0.1:"+strconv.Itoa(port+n))
		}
		status, text := w.get(alice, "/")
		return was(status != http.StatusOK || !strings.HasPrefix(text, alice.Name))
	}},
	{name: "send packets with a forged source", needs: unix.CAP_NET_RAW, try: func(w *world) verdict {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		must(w.t, err)
		defer conn.Close()
		w.do(mallory, "packet", "port", strconv.Itoa(conn.LocalAddr().(*net.UDPAddr).Port), "text", "forged")
		_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, from, _ := conn.ReadFrom(make([]byte, 64))
		return was(from != nil && strings.HasPrefix(from.String(), "127.9.9.9"))
	}},
}

const hostSocket = "@tenement-escape-host"

var onKernel = []attempt{
	{name: "mount a file system", needs: unix.CAP_SYS_ADMIN, try: func(w *world) verdict {
		at := w.data(mallory, "mounted")
		w.do(mallory, "mount", "path", at)
		mounts, err := os.ReadFile(proc(w.who(mallory).PID, "mountinfo"))
		must(w.t, err)
		return was(strings.Contains(string(mounts), " "+at+" "))
	}},
	{name: "make a user namespace", needs: unix.CAP_SYS_ADMIN, try: func(w *world) verdict {
		before := w.userNamespaces(mallory)
		w.do(mallory, "usernamespace")
		return was(w.userNamespaces(mallory) > before)
	}},
	{name: "load a kernel module", needs: unix.CAP_SYS_MODULE, try: func(w *world) verdict {
		got := w.do(mallory, "module")
		if got == noModules && w.level == tenement.IsolationProcess {
			return untold
		}
		return was(got != "" && got != noModules)
	}},
	{name: "set the clock", needs: unix.CAP_SYS_TIME, try: func(w *world) verdict { return was(w.do(mallory, "clock") != "") }},
	{name: "change a setting of the kernel", needs: unix.CAP_NET_ADMIN, try: func(w *world) verdict {
		setting := map[tenement.Isolation]string{ // each its own, of the tests' own network
			tenement.IsolationProcess: "ip_default_ttl", withoutRoot: "tcp_retries1", tenement.IsolationNamespace: "tcp_fin_timeout", tenement.IsolationSandbox: "tcp_retries2",
		}[w.level]
		setting = "/proc/sys/net/ipv4/" + setting
		before, err := os.ReadFile(setting)
		must(w.t, err)
		w.do(mallory, "append", "path", setting, "text", "9")
		now, err := os.ReadFile(setting)
		must(w.t, errors.Join(err, os.WriteFile(setting, before, 0)))
		return was(string(now) != string(before))
	}},
	{name: "call bpf, io_uring, userfaultfd, perf_event_open, the keyrings and the like", try: func(w *world) verdict {
		return was(w.do(mallory, "kernel") != "")
	}},
	{name: "share or leave memory, a message queue or a key for others", try: func(w *world) verdict {
		secret := newSecret("left")
		name := "tenement-escape-" + string(w.level)
		w.do(mallory, "leave", "text", secret, "name", name)
		defer removeLeft(name)
		found := w.do(alice, "find", "name", name) + w.do(bob, "find", "name", name)
		w.stop(mallory)
		found += w.do(alice, "find", "name", name)
		w.wake(mallory)
		return was(strings.Contains(found, secret))
	}},
}

// userNamespaces counts those that an instance's processes are in.
func (w *world) userNamespaces(id tenement.InstanceID) int {
	seen := map[string]bool{}
	for _, pid := range w.members(id) {
		if name, err := os.Readlink(proc(pid, "ns/user")); err == nil {
			seen[name] = true
		}
	}
	return len(seen)
}

var onLimits = []attempt{
	{name: "write to its cgroup's files", try: func(w *world) verdict {
		dir, err := cgroup.Of(w.who(mallory).PID)
		must(w.t, err)
		file := filepath.Join(dir, "cgroup.max.descendants")
		w.do(mallory, "append", "path", file, "text", "7")
		now, err := os.ReadFile(file)
		must(w.t, err)
		return was(strings.TrimSpace(string(now)) == "7")
	}},
	{name: "raise its own limit on descriptors", needs: unix.CAP_SYS_RESOURCE, try: func(w *world) verdict {
		before, err := os.ReadFile(proc(w.who(mallory).PID, "limits"))
		must(w.t, err)
		w.do(mallory, "nofile")
		after, err := os.ReadFile(proc(w.who(mallory).PID, "limits"))
		must(w.t, err)
		return was(string(after) != string(before))
	}},
	{name: "open more files than `open_files_limit`", try: func(w *world) verdict {
		if !w.tryWake(hoarder) {
			return untold
		}
		return was(w.do(hoarder, "open", "n", "200") == "200")
	}},
	{name: "start more processes than `pids_limit`", try: func(w *world) verdict {
		if !w.tryWake(bomber) {
			return untold
		}
		return was(w.do(bomber, "fork", "n", "100") == "100")
	}},
	{name: "use more memory than `memory_limit_mb`", try: func(w *world) verdict {
		if !w.tryWake(bomber) {
			return untold
		}
		status, text := w.get(bomber, "/do/memory?mb=128")
		return was(status == http.StatusOK && strings.Contains(text, "128"))
	}},
	{name: "fill the disk beyond `storage_quota_mb`", try: func(w *world) verdict { return w.fill("4", 1<<20) }},
	{name: "make more files than `storage_quota_mb` allows", try: func(w *world) verdict { return w.fill("1500", 1) }},
	{name: "drown another tenant's log in its own", try: func(w *world) verdict {
		w.get(mallory, "/print?n=20000&line=flood")
		mark := "mark" + newSecret("log")[11:]
		status, _ := w.get(alice, "/print?n=1&line="+mark)
		found := false
		for deadline := time.Now().Add(5 * time.Second); !found && time.Now().Before(deadline); {
			lines, err := w.api.Logs(w.t.Context(), api.LogOptions{Instance: alice, Search: mark})
			must(w.t, err)
			found = len(lines) > 0
		}
		return was(status != http.StatusOK || !found)
	}},
}

// fill has its tenant write so many files, and is stopped where the file system refuses
// some or the daemon does not start it any more.
func (w *world) fill(files string, size int) verdict {
	if !w.tryWake(filler) {
		return untold
	}
	got := w.do(filler, "fill", "n", files, "bytes", strconv.Itoa(size))
	w.stop(filler)
	status, _ := w.get(filler, "/") // not its health path, which is answered for it while it sleeps
	must(w.t, w.api.Delete(w.t.Context(), filler, true))
	return was(got == files && status != http.StatusInsufficientStorage)
}

// tryWake reports whether this machine can start an instance with its limits.
func (w *world) tryWake(id tenement.InstanceID) bool {
	_, err := w.api.Spawn(w.t.Context(), id, api.SpawnOptions{Wake: true})
	if err != nil {
		w.t.Logf("%s: %v", id, err)
	}
	return err == nil
}

var onLife = []attempt{
	{name: "live on after its end: a daemon with a session of its own, deaf to SIGTERM", try: func(w *world) verdict { return w.outlive(mallory) }},
	{name: "live on by leaving its cgroup", try: func(w *world) verdict {
		dir, err := cgroup.Of(w.who(mallory).PID)
		must(w.t, err)
		return w.outlive(mallory, "cgroup", filepath.Join(filepath.Dir(dir), "cgroup.procs"))
	}},
}

// outlive has an instance start a child that means to live on, and ends the instance.
func (w *world) outlive(id tenement.InstanceID, args ...string) verdict {
	w.t.Helper()
	child, _ := strconv.Atoi(w.do(id, "child", args...))
	pids := w.members(id)
	if w.level != tenement.IsolationSandbox && w.user == nil { // where it has another number outside
		pids = append(pids, child)
	}
	w.stop(id)
	defer w.wake(id)
	var left []int
	ended := eventually(func() bool {
		left = slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !alive(pid) })
		return len(left) == 0
	})
	if len(left) == 1 && left[0] == child {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	return was(!ended)
}

var onRemoval = []attempt{
	{name: "have the daemon empty another's directory: links in what it empties", try: func(w *world) verdict {
		w.wake(scratch)
		w.do(scratch, "symlink", "path", w.data(scratch, "dir"), "target", w.data(bob, ""))
		w.do(scratch, "symlink", "path", w.data(scratch, "file"), "target", w.data(bob, secretFile))
		w.do(scratch, "hardlink", "path", w.data(scratch, "hard"), "target", w.data(bob, secretFile))
		before := w.read(w.data(bob, secretFile))
		w.stop(scratch)
		if left, err := os.ReadDir(w.files(w.data(scratch, ""))); err != nil || len(left) > 0 {
			w.t.Errorf("it was not emptied: %v, %v", left, err)
		}
		return was(w.read(w.data(bob, secretFile)) != before)
	}},
	{name: "have the daemon remove another's directory: a link in the place of its own", try: func(w *world) verdict {
		w.wake(throwaway)
		before := w.read(w.data(bob, secretFile))
		w.do(throwaway, "usurp", "target", w.data(bob, ""))
		w.t.Logf("purge: %v", w.api.Delete(w.t.Context(), throwaway, true))
		must(w.t, os.RemoveAll(w.files(w.data(throwaway, "")+".gone")))
		return was(w.read(w.data(bob, secretFile)) != before)
	}},
	{name: "make what the daemon cannot remove: hundreds of directories, one in the other", try: func(w *world) verdict {
		w.wake(throwaway)
		w.do(throwaway, "nest", "path", w.data(throwaway, ""), "n", "300")
		w.t.Logf("purge: %v", w.api.Delete(w.t.Context(), throwaway, true))
		_, err := os.Lstat(w.files(w.data(throwaway, "")))
		return was(!errors.Is(err, os.ErrNotExist))
	}},
}
