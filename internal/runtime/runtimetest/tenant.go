package runtimetest

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// tenantArg, as a program's first argument, makes a test binary be the tenant program.
const tenantArg = "tenant-program"

// TenantMain must be the first thing in TestMain of a package that starts real
// tenants: called in a process started by [TenantCommand] it does not return.
func TenantMain() {
	if len(os.Args) > 1 && os.Args[1] == tenantArg {
		if err := runTenant(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "tenant:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// TenantCommand is the command line of the tenant program, with flags such as
// "-boot=15s" and "-ignore-term". It listens on 127.0.0.1:$PORT, or on the socket that
// was passed, and serves
//
//	/health            200
//	/pid               its process id
//	/env               its environment, as a JSON list
//	/headers           the request's header, host and client address, as JSON
//	/echo              the request's body
//	/exit?code=N       ends at once
//	/hang              never answers
//	/ask?to=&method=&path=  sends a request to an abstract socket, its $TENEMENT_SOCKET if
//	                   there is no to, and answers the status and the body, or the error
//	/notify?to=&text=  sends text to an abstract socket, its $NOTIFY_SOCKET if there is no
//	                   to, and answers "sent" or the error
//	/child?setsid=1    starts a child that ignores SIGTERM, answers its pid
//	/print?out=&err=   prints lines; with part=1 their beginnings
//	/flood?lines=N     begins to print N numbered lines, see [FloodLine]
//	/flooded           how many of them it has printed
//	/memory?mb=N       takes N MiB more, and keeps them; with child=1 a child does
//	/spin?threads=N    keeps N threads busy for ever
//	/files             opens files until it cannot, answers how many and why not
//	/fork?n=N          starts up to N children, answers how many and why not more
//	/hop               starts a process that gives place to its child for ever, and
//	                   writes each time to $DATA_DIR/hops
//	/tick              begins to count milliseconds in $DATA_DIR/ticks
//	/sse?n=&every=     n events, one every so often; n=0: until the client leaves
//	/ws                WebSocket echo
//
// On SIGTERM it writes $DATA_DIR/terminated and exits 0.
func TenantCommand(flags ...string) []string {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{self, tenantArg}, flags...)
}

func runTenant(args []string) error {
	set := flag.NewFlagSet("tenant", flag.ContinueOnError)
	boot := set.Duration("boot", 0, "wait before listening")
	ignoreTerm := set.Bool("ignore-term", false, "ignore SIGTERM")
	idle := set.Bool("idle", false, "be a child that does nothing and ignores SIGTERM")
	hang := set.Bool("hang", false, "accept connections and never answer")
	take := set.Int("take", 0, "take so many MiB and wait")
	exitCode := set.Int("exit", -1, "exit with this status instead of listening")
	if err := set.Parse(args); err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if *idle {
		fmt.Println("deaf") // from here on: the parent waits for it
		select {}
	}
	if *take > 0 {
		takeMemory(*take)
		select {}
	}
	if *exitCode >= 0 {
		fmt.Fprintln(os.Stderr, "exiting with", *exitCode)
		os.Exit(*exitCode)
	}
	if *boot > 0 {
		select {
		case <-time.After(*boot):
		case <-term:
			return nil
		}
	}
	l, err := listen()
	if err != nil {
		return err
	}
	fmt.Println("listening on", os.Getenv("PORT")) // before anything that a request prints
	if *hang {
		go acceptAndHang(l)
	} else {
		go func() { _ = http.Serve(l, tenantMux()) }() //nolint:gosec // a test program: no timeouts wanted
	}
	if socket := os.Getenv("NOTIFY_SOCKET"); socket != "" {
		notify(socket, "READY=1\nSTATUS=listens")
	}
	if *ignoreTerm {
		select {}
	}
	<-term
	return os.WriteFile(filepath.Join(os.Getenv("DATA_DIR"), "terminated"), nil, 0o600)
}

// listen takes the socket that was passed, if one was (sd_listen_fds(3)).
func listen() (net.Listener, error) {
	if os.Getenv("LISTEN_PID") == strconv.Itoa(os.Getpid()) && os.Getenv("LISTEN_FDS") == "1" {
		return net.FileListener(os.NewFile(3, os.Getenv("LISTEN_FDNAMES")))
	}
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", os.Getenv("PORT")))
}

// notify says how a message was sent (sd_notify(3)).
func notify(socket, text string) string {
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }() // a datagram is sent or not
	if _, err := conn.Write([]byte(text)); err != nil {
		return err.Error()
	}
	return "sent"
}

// ask gives the answer to a request at a socket.
func ask(socket, method, path string) string {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(method, "http://tenement"+path, nil)
	if err != nil {
		return err.Error()
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = response.Body.Close() }() // all was read
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(response.StatusCode, " ", string(body))
}

func acceptAndHang(l net.Listener) {
	var kept []net.Conn
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		kept = append(kept, c)
		_ = kept
	}
}

func tenantMux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, os.Environ()) })
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, map[string]any{"header": r.Header, "host": r.Host, "remote": r.RemoteAddr, "uri": r.RequestURI})
	})
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	mux.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/notify", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, notify(cmp.Or(r.FormValue("to"), os.Getenv("NOTIFY_SOCKET")), r.FormValue("text")))
	})
	mux.HandleFunc("/ask", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, ask(cmp.Or(r.FormValue("to"), os.Getenv("TENEMENT_SOCKET")), r.FormValue("method"), r.FormValue("path")))
	})
	mux.HandleFunc("/child", startChild)
	mux.HandleFunc("/print", func(w http.ResponseWriter, r *http.Request) {
		end := "\n"
		if r.FormValue("part") != "" {
			end = ""
		}
		fmt.Print(r.FormValue("out"), end)
		fmt.Fprint(os.Stderr, r.FormValue("err"), end)
		fmt.Fprintln(w, "printed")
	})
	flood(mux)
	exhaust(mux)
	mux.HandleFunc("/tick", startTicking)
	mux.HandleFunc("/sse", serveEvents)
	mux.HandleFunc("/ws", echoWebSocket)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%s:%s", os.Getenv("TENEMENT_SERVICE"), os.Getenv("TENEMENT_INSTANCE"))
	})
	return mux
}

// FloodLine is line n, from 0, of a tenant's flood.
func FloodLine(n int) string { return fmt.Sprintf("line %d of a flood that fills the FIFO\n", n) }

func flood(mux *http.ServeMux) {
	var printed atomic.Int64
	mux.HandleFunc("/flood", func(_ http.ResponseWriter, r *http.Request) {
		lines, _ := strconv.Atoi(r.FormValue("lines"))
		go func() {
			for n := range lines {
				fmt.Print(FloodLine(n))
				printed.Add(1)
			}
		}()
	})
	mux.HandleFunc("/flooded", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, printed.Load()) })
}

func startTicking(w http.ResponseWriter, _ *http.Request) {
	file, err := os.OpenFile(filepath.Join(os.Getenv("DATA_DIR"), "ticks"), os.O_CREATE|os.O_WRONLY, 0o600)
	n := 1_000_000 // of as many digits as those that follow: the file is never half a number
	if err == nil {
		_, err = file.WriteAt([]byte(strconv.Itoa(n)), 0)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	go func() {
		for range time.Tick(time.Millisecond) {
			n++
			_, _ = file.WriteAt([]byte(strconv.Itoa(n)), 0) // if it fails, the number stays
		}
	}()
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func startChild(w http.ResponseWriter, r *http.Request) {
	command := TenantCommand("-idle")
	child := exec.Command(command[0], command[1:]...)
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: r.FormValue("setsid") != ""}
	said, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err == nil {
		_, err = said.Read(make([]byte, 1))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprint(w, child.Process.Pid)
}

func serveEvents(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.FormValue("n"))
	every, err := time.ParseDuration(r.FormValue("every"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 1; n == 0 || i <= n; i++ {
		fmt.Fprintf(w, "data: %d\n\n", i)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }()
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}
