package escape

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// As a program's first argument these make the test binary be the tenant, and a child of
// it that does nothing, deaf to SIGTERM.
const (
	hostileArg = "hostile-program"
	idleArg    = "idle-program"
)

// secretFile is what a tenant keeps in its data directory, readable for all who get there.
const secretFile = "secret"

// What is worth stealing looks like this, so that it is recognised wherever it is found.
var secretPattern = regexp.MustCompile(`ESCAPE-[a-z]+-[0-9A-Z]{26}`)

func newSecret(of string) string { return "ESCAPE-" + of + "-" + rand.Text() }

// secretMemory is a tenant's secret in its memory, where nothing moves it.
var secretMemory = make([]byte, 64)

func heldSecret() string { return strings.TrimRight(string(secretMemory), "\x00") }

// taken is what came of one step that the test told a tenant to take.
type taken struct{ Got, Error string }

// hostileMain must come first in TestMain.
func hostileMain() {
	if len(os.Args) < 2 {
		return
	}
	switch os.Args[1] {
	case idleArg:
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		for _, path := range os.Args[2:] { // cgroups to go to
			_ = os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())), 0)
		}
		fmt.Println("deaf")
		select {}
	case hostileArg:
		if err := serveHostile(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func serveHostile() error {
	copy(secretMemory, newSecret("memory"))
	dir := os.Getenv("DATA_DIR")
	if err := os.WriteFile(filepath.Join(dir, secretFile), []byte(newSecret("file")), 0o644); err != nil {
		return err
	}
	locked, err := os.Open(filepath.Join(dir, secretFile))
	if err == nil {
		err = unix.Flock(int(locked.Fd()), unix.LOCK_SH)
	}
	if err != nil {
		return err
	}
	defer locked.Close()
	var signals atomic.Int64
	heard := make(chan os.Signal, 10)
	signal.Notify(heard, syscall.SIGUSR1, syscall.SIGTERM)
	var seen sync.Map // paths of requests
	mux := http.NewServeMux()
	mux.HandleFunc("/me", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(me{os.Getpid(), 0, uint64(uintptr(unsafe.Pointer(&secretMemory[0]))), heldSecret(), signals.Load()})
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.Header) })
	mux.HandleFunc("/seen", func(w http.ResponseWriter, r *http.Request) {
		seen.Range(func(path, _ any) bool { fmt.Fprintln(w, path); return true })
	})
	mux.HandleFunc("/print", func(_ http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.FormValue("n"))
		line := r.FormValue("line")
		go func() {
			for range n {
				fmt.Println(line)
			}
		}()
	})
	mux.HandleFunc("/raw", answerRaw)
	mux.HandleFunc("/do/{step}", func(w http.ResponseWriter, r *http.Request) {
		var result taken
		got, err := "", errUnknownStep
		if step := steps[r.PathValue("step")]; step != nil {
			got, err = step(r.URL.Query())
		}
		if result.Got = got; err != nil {
			result.Error = err.Error()
		}
		_ = json.NewEncoder(w).Encode(result)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.URL.Path, true)
		fmt.Fprint(w, os.Getenv("TENEMENT_INSTANCE"), " ", heldSecret())
	})
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Getenv("PORT")))
	if err != nil {
		return err
	}
	go func() { _ = http.Serve(l, mux) }()
	for s := range heard {
		if s == syscall.SIGTERM {
			return nil
		}
		signals.Add(1)
	}
	return nil
}

// me is what a tenant tells the test about itself.
type me struct {
	PID     int    // as the machine knows it
	Seen    int    // as tenants know it
	Address uint64 // of the secret in its memory
	Secret  string
	Signals int64
}

// answerRaw answers with any bytes, and leaves the connection open.
func answerRaw(w http.ResponseWriter, r *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, r.FormValue("answer"))
	time.AfterFunc(10*time.Second, func() { _ = conn.Close() })
}

var errUnknownStep = errors.New("there is no such step")

var steps = map[string]func(url.Values) (string, error){
	"read":          func(q url.Values) (string, error) { return readSome(q.Get("path")) },
	"append":        func(q url.Values) (string, error) { return "", appendTo(q.Get("path"), q.Get("text")) },
	"list":          list,
	"symlink":       func(q url.Values) (string, error) { return "", replaceBy(os.Symlink, q) },
	"hardlink":      func(q url.Values) (string, error) { return "", replaceBy(os.Link, q) },
	"nest":          nest,
	"usurp":         usurp,
	"fill":          fill,
	"signal":        sendSignal,
	"poke":          poke,
	"vmread":        readMemory,
	"stack":         readStack,
	"ask":           ask,
	"listen":        listen,
	"packet":        sendForged,
	"mount":         mount,
	"module":        loadModule,
	"clock":         setClock,
	"child":         startChild,
	"usernamespace": startInUserNamespace,
	"nofile":        raiseNofile,
	"descriptors":   inherited,
	"open":          openMany,
	"fork":          forkMany,
	"memory":        takeMemory,
	"leave":         leaveBehind,
	"find":          findLeft,
	"kernel":        callKernel,
	"terminal":      useTerminal,
}

func readSome(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, 64<<10))
	return string(text), err
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

func list(q url.Values) (string, error) {
	entries, err := os.ReadDir(q.Get("path"))
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return strings.Join(names, "\n"), err
}

func replaceBy(link func(string, string) error, q url.Values) error {
	_ = os.Remove(q.Get("path")) // it need not be there
	return link(q.Get("target"), q.Get("path"))
}

// nest makes n directories, one within the other.
func nest(q url.Values) (string, error) {
	n, _ := strconv.Atoi(q.Get("n"))
	return "", os.MkdirAll(filepath.Join(q.Get("path"), strings.Repeat("d/", n)), 0o700)
}

// usurp puts a link to another directory in the place of the tenant's own.
func usurp(q url.Values) (string, error) {
	own := os.Getenv("DATA_DIR")
	return "", errors.Join(os.Rename(own, own+".gone"), os.Symlink(q.Get("target"), own))
}

// fill makes n files of so many bytes.
func fill(q url.Values) (string, error) {
	n, _ := strconv.Atoi(q.Get("n"))
	bytes, _ := strconv.Atoi(q.Get("bytes"))
	for i := range n {
		if err := os.WriteFile(filepath.Join(os.Getenv("DATA_DIR"), "fill"+strconv.Itoa(i)), make([]byte, bytes), 0o600); err != nil {
			return strconv.Itoa(i), err
		}
	}
	return strconv.Itoa(n), nil
}

func pidOf(q url.Values) int {
	pid, err := strconv.Atoi(q.Get("pid"))
	if err != nil || pid <= 1 {
		return -1 << 30 // nobody: never everybody
	}
	return pid
}

func sendSignal(q url.Values) (string, error) {
	number, _ := strconv.Atoi(q.Get("signal"))
	return "", syscall.Kill(pidOf(q), syscall.Signal(number))
}

const poked = "POKED!!!"

// poke changes eight bytes of another process as a debugger does.
func poke(q url.Values) (string, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	address, _ := strconv.ParseUint(q.Get("address"), 10, 64)
	pid := pidOf(q)
	if err := unix.PtraceAttach(pid); err != nil {
		return "", err
	}
	var status unix.WaitStatus
	_, err := unix.Wait4(pid, &status, unix.WALL, nil)
	if err == nil {
		_, err = unix.PtracePokeData(pid, uintptr(address), []byte(poked))
	}
	return "", errors.Join(err, unix.PtraceDetach(pid))
}

func readMemory(q url.Values) (string, error) {
	address, _ := strconv.ParseUint(q.Get("address"), 10, 64)
	buf := make([]byte, 64)
	local := []unix.Iovec{{Base: &buf[0], Len: uint64(len(buf))}}
	n, err := unix.ProcessVMReadv(pidOf(q), local, []unix.RemoteIovec{{Base: uintptr(address), Len: len(buf)}}, 0)
	return strings.TrimRight(string(buf[:max(n, 0)]), "\x00"), err
}

// readStack looks for secrets in the first stack of a process, where its environment is.
func readStack(q url.Values) (string, error) {
	dir := "/proc/" + strconv.Itoa(pidOf(q))
	maps, err := os.ReadFile(dir + "/maps")
	if err != nil {
		return "", err
	}
	memory, err := os.Open(dir + "/mem")
	if err != nil {
		return "", err
	}
	defer memory.Close()
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		if _, err := fmt.Sscanf(line, "%x-%x", &from, &to); err == nil && strings.Contains(line, "[stack]") {
			text := make([]byte, min(to-from, 1<<20))
			if _, err := memory.ReadAt(text, to-int64(len(text))); err != nil {
				return "", err
			}
			return strings.Join(secretPattern.FindAllString(string(text), -1), "\n"), nil
		}
	}
	return "", errors.New("it has no stack")
}

// ask sends text to all addresses at once and gives what comes back from any.
func ask(q url.Values) (string, error) {
	answers := make(chan string, len(q["address"]))
	for _, address := range q["address"] {
		go func() { answers <- askOne(q.Get("network"), address, q.Get("text")) }()
	}
	var all []string
	for range q["address"] {
		all = append(all, <-answers)
	}
	return strings.Join(all, "\n"), nil
}

// askTimeout is for what nobody answers: the packets are dropped.
const askTimeout = 300 * time.Millisecond

func askOne(network, address, text string) string {
	conn, err := net.DialTimeout(network, address, askTimeout)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * askTimeout))
	_, _ = io.WriteString(conn, text) // who greets first may have gone already
	buf := make([]byte, 8<<10)
	n, _ := io.ReadFull(conn, buf) // what there is until it ends
	return string(buf[:n])
}

const greeting = "it is mallory who listens here"

// listen greets whoever comes to an address, for as long as the process lives.
func listen(q url.Values) (string, error) {
	l, err := net.Listen(q.Get("network"), q.Get("address"))
	if err != nil {
		return "", err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, greeting)
			_ = conn.Close()
		}
	}()
	return l.Addr().String(), nil
}
