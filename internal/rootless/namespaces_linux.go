package rootless

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Namespaces are those that this process was started for by [Enter].
type Namespaces struct {
	Mount, PID *os.File
	UIDs       Range // for tenants
	Keeper     int   // the process that keeps them

	uid, gid int // of the user, outside
}

// Open finds the namespaces of this process; nil if it is not [Inside] any.
func Open() (_ *Namespaces, err error) {
	if !Inside() {
		return nil, nil //nolint:nilnil // there are none
	}
	n := &Namespaces{}
	if n.Keeper, err = strconv.Atoi(os.Getenv(keeperVariable)); err != nil {
		return nil, fmt.Errorf("%s: %w", keeperVariable, err)
	}
	if _, err := fmt.Sscanf(os.Getenv(userVariable), "%d:%d", &n.uid, &n.gid); err != nil {
		return nil, fmt.Errorf("%s: %w", userVariable, err)
	}
	if n.UIDs, err = tenantIDs(); err != nil {
		return nil, err
	}
	kept := filepath.Join("/proc", strconv.Itoa(n.Keeper), "ns")
	theirs, err := os.Stat(filepath.Join(kept, "user"))
	if err != nil {
		return nil, err
	}
	own, err := os.Stat("/proc/self/ns/user")
	if err != nil {
		return nil, err
	}
	if !os.SameFile(own, theirs) {
		return nil, fmt.Errorf("process %d keeps another user namespace", n.Keeper)
	}
	if n.Mount, err = os.Open(filepath.Join(kept, "mnt")); err != nil {
		return nil, err
	}
	if n.PID, err = os.Open(filepath.Join(kept, "pid")); err != nil {
		return nil, errors.Join(err, n.Mount.Close())
	}
	return n, nil
}

// tenantIDs is the second range that is mapped here (user_namespaces(7)).
func tenantIDs() (r Range, err error) {
	const path = "/proc/self/uid_map"
	text, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	var root, outside, count, first int
	if _, err := fmt.Sscan(string(text), &root, &outside, &count, &r.First, &first, &r.Count); err != nil {
		return r, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// Close gives up the descriptors. The namespaces stay.
func (n *Namespaces) Close() error { return errors.Join(n.Mount.Close(), n.PID.Close()) }

// End ends the keeper, and whatever is left in the namespaces.
func (n *Namespaces) End() error {
	err := syscall.Kill(n.Keeper, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return nil
	}
	return err
}

// AsUser has a process started as the user, without any rights in the user namespace.
func (n *Namespaces) AsUser(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: n.uid, Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: n.gid, Size: 1}}
}
