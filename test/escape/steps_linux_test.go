package escape

import (
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendForged sends a datagram from an address that is not its own (ip(7), IP_HDRINCL).
func sendForged(q url.Values) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	port, _ := strconv.Atoi(q.Get("port"))
	text := q.Get("text")
	packet := append([]byte{
		0x45, 0, 0, byte(28 + len(text)), 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 127, 9, 9, 9, 127, 0, 0, 1, // RFC 791 §3.1
		0, 9, byte(port >> 8), byte(port), 0, byte(8 + len(text)), 0, 0, // RFC 768
	}, text...)
	return "", unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
}

func mount(q url.Values) (string, error) {
	if err := os.Mkdir(q.Get("path"), 0o700); err != nil {
		return "", err
	}
	return "", unix.Mount("escape", q.Get("path"), "tmpfs", 0, "size=64k")
}

// noModules is what a kernel says that cannot load any.
const noModules = "this kernel takes none"

// loadModule offers what is no module: it was let in if that is what it is told.
func loadModule(url.Values) (string, error) {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer file.Close()
	err = unix.FinitModule(int(file.Fd()), "", 0)
	if errors.Is(err, unix.ENOEXEC) || errors.Is(err, unix.EINVAL) {
		return "refused for what it is", nil
	}
	if errors.Is(err, unix.ENOSYS) {
		return noModules, nil
	}
	return "", err
}

// setClock sets the length of a tick to what it is (adjtimex(2)).
func setClock(url.Values) (string, error) {
	var now unix.Timex
	if _, err := unix.Adjtimex(&now); err != nil {
		return "", err
	}
	if _, err := unix.Adjtimex(&unix.Timex{Modes: unix.ADJ_TICK, Tick: now.Tick}); err != nil {
		return "", err
	}
	return "set", nil
}

// startChild starts a daemon: with a session of its own, deaf, and whose parent is gone;
// before it says so it goes to the cgroups of q.
func startChild(q url.Values) (string, error) {
	return spawnIdle(&syscall.SysProcAttr{Setsid: true}, q["cgroup"]...)
}

func startInUserNamespace(url.Values) (string, error) {
	var all error
	for _, flags := range []uintptr{unix.CLONE_NEWUSER, unix.CLONE_NEWUSER | unix.CLONE_NEWNET} {
		pid, err := spawnIdle(&syscall.SysProcAttr{Cloneflags: flags})
		if err == nil {
			return pid, nil
		}
		all = errors.Join(all, err)
	}
	cloneArgs := [8]uint64{0: unix.CLONE_NEWUSER, 4: uint64(unix.SIGCHLD)} // struct clone_args, linux/sched.h
	pid, _, errno := unix.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&cloneArgs)), unsafe.Sizeof(cloneArgs), 0)
	if errno != 0 {
		return "", errors.Join(all, errno)
	}
	if pid == 0 {
		for {
			_, _, _ = unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
		}
	}
	return strconv.Itoa(int(pid)), nil
}

func spawnIdle(attr *syscall.SysProcAttr, args ...string) (string, error) {
	child := exec.Command("/proc/self/exe", append([]string{idleArg}, args...)...)
	child.SysProcAttr = attr
	said, err := child.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := child.Start(); err != nil {
		return "", err
	}
	if _, err := said.Read(make([]byte, 1)); err != nil {
		return "", err
	}
	return strconv.Itoa(child.Process.Pid), nil
}

// raiseNofile asks for more descriptors than it was given.
func raiseNofile(url.Values) (string, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return "", err
	}
	limit.Max++
	limit.Cur = limit.Max
	return "", unix.Prlimit(0, unix.RLIMIT_NOFILE, &limit, nil)
}

// inherited reads what the daemon may have left open.
func inherited(url.Values) (string, error) {
	var found []string
	for fd := 3; fd < 64; fd++ {
		buf := make([]byte, 1<<10)
		if n, err := unix.Pread(fd, buf, 0); err == nil {
			found = append(found, secretPattern.FindAllString(string(buf[:n]), -1)...)
		}
	}
	return strings.Join(found, "\n"), nil
}

// openMany opens at most n files, says how many, and closes them.
func openMany(q url.Values) (string, error) {
	n, _ := strconv.Atoi(q.Get("n"))
	var files []*os.File
	defer func() {
		for _, file := range files {
			_ = file.Close()
		}
	}()
	for range n {
		file, err := os.Open(os.DevNull)
		if err != nil {
			return strconv.Itoa(len(files)), err
		}
		files = append(files, file)
	}
	return strconv.Itoa(n), nil
}

// forkMany starts at most n children, says how many, and ends them.
func forkMany(q url.Values) (string, error) {
	n, _ := strconv.Atoi(q.Get("n"))
	var children []*exec.Cmd
	defer func() {
		for _, child := range children {
			_ = child.Process.Kill()
			_ = child.Wait()
		}
	}()
	for range n {
		child := exec.Command("/bin/sleep", "60")
		if err := child.Start(); err != nil {
			return strconv.Itoa(len(children)), err
		}
		children = append(children, child)
	}
	return strconv.Itoa(n), nil
}

// takeMemory uses so many megabytes.
func takeMemory(q url.Values) (string, error) {
	n, _ := strconv.Atoi(q.Get("mb"))
	all := make([]byte, n<<20)
	for i := 0; i < len(all); i += 4096 {
		all[i] = 1
	}
	runtime.KeepAlive(all)
	return q.Get("mb"), nil
}

// ipcKey is that of a segment of System V shared memory nobody else uses.
func ipcKey(name string) int { return 0x74656e00 + int(name[len(name)-1]) }

// leaveBehind puts a text where processes share things without a file.
func leaveBehind(q url.Values) (string, error) {
	text, name := q.Get("text"), q.Get("name")
	var all error
	id, err := unix.SysvShmGet(ipcKey(name), 4096, unix.IPC_CREAT|0o666)
	if err == nil {
		var memory []byte
		if memory, err = unix.SysvShmAttach(id, 0, 0); err == nil {
			copy(memory, text)
			err = unix.SysvShmDetach(memory)
		}
	}
	all = errors.Join(all, err, appendTo("/dev/shm/"+name, text))
	queue, err := openQueue(name, unix.O_CREAT|unix.O_RDWR)
	if err == nil {
		_, _, errno := unix.Syscall6(unix.SYS_MQ_TIMEDSEND, queue, uintptr(unsafe.Pointer(unsafe.StringData(text))), uintptr(len(text)), 0, 0, 0)
		if err = unix.Close(int(queue)); errno != 0 {
			err = errno
		}
	}
	all = errors.Join(all, err)
	_, err = unix.AddKey("user", name, []byte(text), unix.KEY_SPEC_USER_KEYRING)
	return "", errors.Join(all, err)
}

func openQueue(name string, flags int) (uintptr, error) {
	text, err := unix.BytePtrFromString(name)
	if err != nil {
		return 0, err
	}
	queue, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(text)), uintptr(flags), 0o666, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return queue, nil
}

// findLeft looks for what another process left.
func findLeft(q url.Values) (string, error) {
	name := q.Get("name")
	var found []string
	add := func(where string, text []byte) {
		if secret := secretPattern.Find(text); secret != nil {
			found = append(found, where+"="+string(secret))
		}
	}
	if id, err := unix.SysvShmGet(ipcKey(name), 4096, 0); err == nil {
		if memory, err := unix.SysvShmAttach(id, 0, unix.SHM_RDONLY); err == nil {
			add("shm", memory)
			_ = unix.SysvShmDetach(memory)
		}
	}
	if text, err := os.ReadFile("/dev/shm/" + name); err == nil {
		add("devshm", text)
	}
	buf := make([]byte, 64<<10)
	if queue, err := openQueue(name, unix.O_RDONLY|unix.O_NONBLOCK); err == nil {
		n, _, errno := unix.Syscall6(unix.SYS_MQ_TIMEDRECEIVE, queue, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0, 0)
		if errno == 0 {
			add("queue", buf[:n])
		}
		_ = unix.Close(int(queue))
	}
	if id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", name, 0); err == nil {
		if n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, buf, 0); err == nil {
			add("key", buf[:n])
		}
	}
	return strings.Join(found, "\n"), nil
}

// callKernel calls what kernels have been broken by, with arguments that do no harm, and
// names what was not refused.
func callKernel(url.Values) (string, error) {
	var let []string
	for name, call := range map[string][3]uintptr{
		"bpf":             {unix.SYS_BPF, 0, 0},
		"perf_event_open": {unix.SYS_PERF_EVENT_OPEN, 0, 0},
		"userfaultfd":     {unix.SYS_USERFAULTFD, 0xffff, 0},
		"io_uring_setup":  {unix.SYS_IO_URING_SETUP, 0, 0},
		"add_key":         {unix.SYS_ADD_KEY, 0, 0},
		"keyctl":          {unix.SYS_KEYCTL, 0xffff, 0},
		"fsopen":          {unix.SYS_FSOPEN, 0, 0},
		"kexec_load":      {unix.SYS_KEXEC_LOAD, 0, 1 << 20},
		"open_by_handle":  {unix.SYS_OPEN_BY_HANDLE_AT, ^uintptr(0), 0},
		"fanotify_init":   {unix.SYS_FANOTIFY_INIT, 0xffffffff, 0},
		"vsock":           {unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM},
		"alg":             {unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET},
		"packet":          {unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW},
	} {
		_, _, errno := unix.Syscall6(call[0], call[1], call[2], 0, 0, 0, 0)
		switch errno {
		case unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENODEV, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.ESOCKTNOSUPPORT:
		default:
			let = append(let, name+": "+errno.Error())
		}
	}
	return strings.Join(let, "\n"), nil
}

// useTerminal writes to the terminal of the session, and types there.
func useTerminal(q url.Values) (string, error) {
	terminal, err := os.OpenFile("/dev/tty", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return "", err
	}
	defer terminal.Close()
	_, err = terminal.WriteString(q.Get("text"))
	for _, key := range []byte(q.Get("text")) {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, terminal.Fd(), unix.TIOCSTI, uintptr(unsafe.Pointer(&key)))
		if errno != 0 {
			return "", errors.Join(err, errno)
		}
	}
	return "", err
}

// removeLeft takes away what a tenant of the machine itself has left.
func removeLeft(name string) {
	_ = os.Remove(filepath.Join("/dev/shm", name)) // none of it need be there
	if id, err := unix.SysvShmGet(ipcKey(name), 4096, 0); err == nil {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
	if text, err := unix.BytePtrFromString(name); err == nil {
		_, _, _ = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(text)), 0, 0)
	}
	if id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", name, 0); err == nil {
		_, _ = unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0)
	}
}
