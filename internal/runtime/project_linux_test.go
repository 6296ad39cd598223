package runtime_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"tenement"
)

// projectArg, as its first argument, makes the test binary try to leave the project of
// its working directory, by every call there is for that.
const projectArg = "project-program"

func init() {
	if len(os.Args) == 2 && os.Args[1] == projectArg {
		for _, outcome := range leaveProject() {
			fmt.Println(outcome)
		}
		os.Exit(0)
	}
}

// leaveProject changes nothing: it sets what it has got.
func leaveProject() []string {
	dir, err := os.Open(".")
	if err != nil {
		return []string{err.Error()}
	}
	defer dir.Close()
	const fileSetAttr = 469 // file_setattr(2), of Linux 6.17
	var attributes [7]uint32
	var flags uint64
	var outcomes []string
	for _, c := range []struct {
		name    string
		number  uintptr
		request uintptr
		address unsafe.Pointer
	}{
		{"get attributes", unix.SYS_IOCTL, 0x801c581f, unsafe.Pointer(&attributes)},
		{"set attributes", unix.SYS_IOCTL, 0x401c5820, unsafe.Pointer(&attributes)},
		{"set attributes in disguise", unix.SYS_IOCTL, 0x1_401c5820, unsafe.Pointer(&attributes)},
		{"get flags", unix.SYS_IOCTL, 0x80086601, unsafe.Pointer(&flags)},
		{"set flags", unix.SYS_IOCTL, 0x40086602, unsafe.Pointer(&flags)},
		{"set flags in disguise", unix.SYS_IOCTL, 0xf00_40086602, unsafe.Pointer(&flags)},
		{"file_setattr", fileSetAttr, 0, nil},
	} {
		_, _, errno := unix.Syscall(c.number, dir.Fd(), c.request, uintptr(c.address))
		outcomes = append(outcomes, fmt.Sprintf("%s: %v", c.name, errno))
	}
	return outcomes
}

// TestNamespaceStaysInItsProject: who leaves it has no storage quota.
func TestNamespaceStaysInItsProject(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	j := newJail(t)
	s := j.spec("alice", "")
	s.Service.Command = []tenement.Template{tenement.MustTemplate(self), tenement.MustTemplate(projectArg)}
	got := strings.Split(strings.TrimSpace(j.run(s)), "\n")
	want := []string{"get attributes: errno 0", "set attributes: operation not permitted", "set attributes in disguise: operation not permitted",
		"get flags: errno 0", "set flags: operation not permitted", "set flags in disguise: operation not permitted"}
	if len(got) != len(want)+1 || strings.Join(got[:len(want)], "\n") != strings.Join(want, "\n") || !strings.Contains(got[len(want)], "function not implemented") && !strings.Contains(got[len(want)], "not permitted") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	if entries, err := filepath.Glob(s.DataDir + "/*"); err != nil || len(entries) > 0 {
		t.Errorf("it has made %v, %v", entries, err)
	}
}
