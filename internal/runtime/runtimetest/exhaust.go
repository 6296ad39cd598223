package runtimetest

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync"
)

// taken is the memory that the tenant program has taken.
var taken struct {
	sync.Mutex
	blocks [][]byte
}

const mebibyte = 1 << 20

// takeMemory takes memory a MiB at a time, and touches every page of it.
func takeMemory(mebibytes int) {
	taken.Lock()
	defer taken.Unlock()
	for range mebibytes {
		block := make([]byte, mebibyte)
		for i := 0; i < len(block); i += os.Getpagesize() {
			block[i] = byte(i>>12) | 1
		}
		taken.blocks = append(taken.blocks, block)
	}
}

// exhaust adds what uses up a tenant's limits.
func exhaust(mux *http.ServeMux) {
	number := func(r *http.Request, name string) int {
		n, _ := strconv.Atoi(r.FormValue(name))
		return n
	}
	mux.HandleFunc("/memory", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("child") == "" {
			takeMemory(number(r, "mb"))
			return
		}
		command := TenantCommand("-take=" + r.FormValue("mb"))
		if err := exec.Command(command[0], command[1:]...).Run(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("/spin", func(_ http.ResponseWriter, r *http.Request) {
		for range number(r, "threads") {
			go func() {
				for { //nolint:staticcheck // to use the processor is all it is for
				}
			}()
		}
	})
	mux.HandleFunc("/files", openFiles)
	mux.HandleFunc("/fork", func(w http.ResponseWriter, r *http.Request) {
		for n := range number(r, "n") {
			if err := exec.Command("sleep", "1000000").Start(); err != nil {
				fmt.Fprintf(w, "%d %v", n, err)
				return
			}
		}
		fmt.Fprint(w, r.FormValue("n"))
	})
	mux.HandleFunc("/hop", func(w http.ResponseWriter, _ *http.Request) {
		if err := exec.Command("sh", "-c", `hop() { echo >>"$DATA_DIR/hops"; (hop) & exit; }; hop`).Start(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
}

// openFiles closes what it opened before it answers, for which it needs descriptors.
func openFiles(w http.ResponseWriter, _ *http.Request) {
	var files []*os.File
	var err error
	for err == nil {
		var file *os.File
		if file, err = os.Open(os.DevNull); err == nil {
			files = append(files, file)
		}
	}
	for _, file := range files {
		_ = file.Close() // it was only read
	}
	fmt.Fprintf(w, "%d %v", len(files), err)
}
