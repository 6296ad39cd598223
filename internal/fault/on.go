//go:build faults

package fault

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Enabled says whether this program was built to crash on request.
const Enabled = true

var (
	crashAt Name
	passes  atomic.Int64 // still to go until the crash
)

// A request that is not understood ends the program: a test that believes to crash
// it somewhere would otherwise pass for nothing.
func init() {
	text, ok := os.LookupEnv(Variable)
	if !ok {
		return
	}
	name, pass, counted := strings.Cut(text, ":")
	n := 1
	if counted {
		var err error
		if n, err = strconv.Atoi(pass); err != nil || n < 1 {
			panic(fmt.Sprintf("%s=%q: %q is no number of a pass", Variable, text, pass))
		}
	}
	for _, point := range Points {
		if string(point) == name {
			crashAt = point
			passes.Store(int64(n))
			return
		}
	}
	panic(fmt.Sprintf("%s=%q: there is no such point", Variable, text))
}

// Point kills this process if it is the point, and the pass, that was asked for, and
// says so: a test may not be the parent, who learns how a process has ended.
func Point(name Name) {
	if name != crashAt || passes.Add(-1) != 0 {
		return
	}
	fmt.Fprintf(os.Stderr, "crashed at %s\n", name)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // fails for nobody who signals himself
	select {}                                      // the signal may take a moment to arrive
}
