package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tenement/internal/config"
	"tenement/internal/runtime/runtimetest"
)

// programs are what customers run, each with its own way to start: files of the working
// directory, and the command.
var programs = []struct {
	name, command string
	needs         map[string]string // program: how to install it
	files         map[string]string
	keys          string // of the service, besides
}{
	{name: "go", command: "%s/bin/notes"},
	{
		name: "python", command: "python3 app.py", needs: python,
		files: map[string]string{"app.py": httpServer},
	},
	{
		name: "node", command: "node app.js", needs: map[string]string{"node": "nodejs"},
		files: map[string]string{"app.js": nodeServer},
	},
	{
		name: "npm", command: "npm start", needs: map[string]string{"npm": "npm"},
		files: map[string]string{"app.js": nodeServer, "package.json": `{"name": "app", "scripts": {"start": "node app.js"}}`},
	},
	{
		name: "shell", command: "./run.sh", needs: python,
		files: map[string]string{"app.py": httpServer, "run.sh": "#!/bin/sh\nset -eu\ndate >\"$DATA_DIR/started\"\npython3 app.py & wait\n"},
	},
	{
		name: "uvicorn", command: "uvicorn --host 127.0.0.1 --port {port} app:app", needs: map[string]string{"uvicorn": "uvicorn"},
		files: map[string]string{"app.py": asgiApp},
	},
	{
		name: "gunicorn", command: "gunicorn --workers 3 --bind 127.0.0.1:{port} app:app", needs: map[string]string{"gunicorn": "gunicorn"},
		files: map[string]string{"app.py": wsgiApp},
	},
	{
		name: "passed", command: "python3 app.py", needs: python, keys: `listen = "fd"`,
		files: map[string]string{"app.py": passedServer},
	},
	{
		name: "notify", command: "python3 app.py", needs: python, keys: `ready = "notify"`,
		files: map[string]string{"app.py": notifyServer},
	},
	{
		name: "uvicorn-passed", command: "uvicorn --fd 3 app:app", needs: map[string]string{"uvicorn": "uvicorn"}, keys: `listen = "fd"`,
		files: map[string]string{"app.py": asgiApp},
	},
	{
		name: "gunicorn-passed", command: "gunicorn --workers 3 app:app", needs: map[string]string{"gunicorn": "gunicorn"},
		keys:  "listen = \"fd\"\nhealth = \"/\"",
		files: map[string]string{"app.py": wsgiApp},
	},
	{
		name: "large", command: "python3 app.py", needs: python,
		files: map[string]string{"app.py": largeAddressSpace + httpServer},
	},
}

var python = map[string]string{"python3": "python3"}

const (
	httpServer = handler + `
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
`
	notifyServer = handler + `
import socket
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.connect(os.environ["NOTIFY_SOCKET"].replace("@", "\0", 1))
manager.send(b"READY=1")
server.serve_forever()
`
	passedServer = handler + `
import socket
assert int(os.environ["LISTEN_PID"]) == os.getpid() and os.environ["LISTEN_FDS"] == "1"
server = http.server.ThreadingHTTPServer(None, Handler, bind_and_activate=False)
server.socket = socket.socket(fileno=3)
server.serve_forever()
`
	handler = `
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from " + os.environ["TENEMENT_INSTANCE"].encode())
`
	nodeServer = `
require("http").createServer((_, answer) => answer.end("hello from " + process.env.TENEMENT_INSTANCE)).listen(process.env.PORT, "127.0.0.1")
`
	wsgiApp = `
import os
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello from " + os.environ["TENEMENT_INSTANCE"].encode()]
`
	asgiApp = `
import os
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello from " + os.environ["TENEMENT_INSTANCE"].encode()})
`
	// A virtual machine's heap, metaspace and threads, of which little is in use.
	largeAddressSpace = `
import mmap, threading
heap = mmap.mmap(-1, 1 << 30)
heap[:1 << 20] = b"x" * (1 << 20)
for _ in range(64):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
`
)

// TestProgramsUnderTheDefault: what people run runs isolated, without being told so.
func TestProgramsUnderTheDefault(t *testing.T) {
	t.Parallel()
	requireRoot(t)
	if err := build(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var text strings.Builder
	var names []string
	for _, p := range programs {
		for program, pkg := range p.needs {
			require(t, program, "install it (Debian: apt-get install "+pkg+")")
		}
		workdir := filepath.Join(dir, p.name)
		if err := os.Mkdir(workdir, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, content := range p.files {
			if err := os.WriteFile(filepath.Join(workdir, name), []byte(content), 0o755); err != nil { //nolint:gosec // programs
				t.Fatal(err)
			}
		}
		fmt.Fprintf(&text, "[service.%s]\ncommand = %q\nworkdir = %q\nstartup_timeout = 60\n%s\n", p.name, strings.ReplaceAll(p.command, "%s", root), workdir, p.keys)
		names = append(names, p.name)
	}
	if config.DefaultIsolation() != "namespace" {
		t.Fatal("the default is another")
	}
	file := filepath.Join(dir, "tenement.toml")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startConfig(t, file, t.TempDir())
	for _, name := range names {
		d.command("spawn", name+":alice")
	}
	for _, name := range names {
		a := d.get(http.StatusOK, "alice."+name+".localhost", "/")
		if name != "go" && a.body != "hello from alice" {
			t.Errorf("%s answers %q", name, a.body)
		}
	}
	for _, name := range names {
		pid := d.pid(name + ":alice")
		if got := status(t, pid, "Seccomp"); got != "2" {
			t.Errorf("%s is not isolated: Seccomp is %q", name, got)
		}
		d.command("stop", name+":alice")
		runtimetest.Eventually(t, name+" is gone", func() bool { return !runtimetest.Alive(pid) })
	}
}
