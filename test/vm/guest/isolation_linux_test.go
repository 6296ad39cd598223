package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// firstUID is the lowest that an isolated instance can have (decision 18).
const firstUID = 1_900_000_000

// hostEnds are names of the machine's ends of tenants' networks.
var hostEnds = regexp.MustCompile(`^t[0-9a-f]{6}-[0-9]+$`)

// isIsolated wants alice's process to have nothing but what is its own.
func isIsolated(t *testing.T) {
	pid := tenant(t)
	for name, want := range map[string]string{
		"CapBnd:": none, "CapPrm:": none, "CapEff:": none, "CapInh:": none, "CapAmb:": none, "NoNewPrivs:": "1", "Seccomp:": "2", "Groups:": "",
	} {
		if got := field(t, pid, "status", name); got != want {
			t.Errorf("%s %s, want %s", name, got, want)
		}
	}
	for _, name := range []string{"Uid:", "Gid:"} {
		ids := strings.Fields(field(t, pid, "status", name))
		if n, err := strconv.Atoi(ids[0]); err != nil || n < firstUID || strings.Count(strings.Join(ids, " "), ids[0]) != 4 {
			t.Errorf("%s %v", name, ids)
		}
	}
	for _, kind := range []string{"mnt", "net", "ipc", "uts"} {
		if must(os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))) == must(os.Readlink("/proc/self/ns/"+kind)) {
			t.Errorf("it is in the machine's %s namespace", kind)
		}
	}
	root := fmt.Sprintf("/proc/%d/root", pid)
	for path, want := range map[string]bool{
		program: true, "/usr/bin/env": true, dataDir + "/notes/alice/app.db": true,
		"/etc/shadow": false, dataDir + "/.tenement": false, payload: false, "/sys": false,
	} {
		if got := exists(root + path); got != want {
			t.Errorf("it sees %s: %v", path, got)
		}
	}
	// Its directory is the service's `workdir` by default.
	if text, err := os.ReadFile(root + configFile); err == nil && len(text) > 0 {
		t.Errorf("it reads the configuration:\n%s", text)
	}
	owner := must(os.Stat(dataDir + "/notes/alice"))
	if got := strings.Fields(field(t, pid, "status", "Uid:"))[0]; got != run(t, "stat", "--format=%u", dataDir+"/notes/alice") || owner.Mode().Perm() != 0o700 {
		t.Errorf("its directory has mode %v and is not of user %s", owner.Mode(), got)
	}
}

// hasNetwork wants alice to have a way out, and none to this machine: neither to what
// listens on loopback nor by an address that the machine has.
func hasNetwork(t *testing.T) {
	const elsewhere, own = "203.0.113.1", "192.0.2.1" // RFC 5737
	loopback := must(netlink.LinkByName("lo"))
	if err := netlink.AddrReplace(loopback, must(netlink.ParseAddr(own+"/32"))); err != nil {
		t.Fatal(err)
	}
	open := must(net.Listen("tcp4", "0.0.0.0:9999"))
	defer open.Close()
	if conn, err := net.Dial("tcp4", own+":9999"); err != nil {
		t.Fatalf("the machine itself: %v", err)
	} else {
		conn.Close()
	}
	end := linkOf(t, tenant(t))
	for _, address := range []string{"127.0.0.1:9999", own + ":9999", elsewhere + ":9999", "127.0.0.1:8080"} {
		before := arrived(t, end)
		err := dialFrom(tenant(t), address)
		host, port, _ := strings.Cut(address, ":")
		switch came := arrived(t, end) > before; {
		case port == "8080": // of the tenant's own loopback, where it listens
			if err != nil {
				t.Errorf("it does not reach itself: %v", err)
			}
		case err == nil:
			t.Errorf("it reaches %s", address)
		case host != "127.0.0.1" && !came:
			t.Errorf("nothing of what it sent to %s came to %s", address, end)
		}
	}
	if got := strings.TrimSpace(string(must(os.ReadFile("/proc/sys/net/ipv4/ip_forward")))); got != "1" {
		t.Errorf("ip_forward is %s", got)
	}
	if tables := tables(t); len(tables) != 1 {
		t.Errorf("the tables are %q", tables)
	}
}

// within runs do on a thread in the network namespace of a process, and ends the thread.
func within(pid int, do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever
		file, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err == nil {
			err = errors.Join(unix.Setns(int(file.Fd()), unix.CLONE_NEWNET), file.Close())
		}
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

func dialFrom(pid int, address string) error {
	return within(pid, func() error {
		conn, err := net.DialTimeout("tcp4", address, 2*time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// linkOf is the machine's end of the network of a process.
func linkOf(t *testing.T, pid int) string {
	t.Helper()
	index := 0
	err := within(pid, func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err == nil {
			index = eth0.Attrs().ParentIndex
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		t.Fatal(err)
	}
	if name := link.Attrs().Name; hostEnds.MatchString(name) {
		return name
	}
	t.Fatalf("the other end of its interface is %s", link.Attrs().Name)
	return ""
}

func arrived(t *testing.T, name string) uint64 {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Statistics.RxPackets
}

// tables are the names of all that package network has made.
func tables(t *testing.T) []string {
	t.Helper()
	list, err := new(nftables.Conn).ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, table := range list {
		names = append(names, table.Name)
	}
	return names
}

// leavesNothing wants the machine to be as if there never was a tenant.
func leavesNothing(t *testing.T) {
	t.Helper()
	for _, i := range must(net.Interfaces()) {
		if hostEnds.MatchString(i.Name) {
			t.Errorf("the interface %s is left", i.Name)
		}
	}
	if tables := tables(t); len(tables) > 0 {
		t.Errorf("the tables %q are left", tables)
	}
	if got := strings.TrimSpace(string(must(os.ReadFile("/proc/sys/net/ipv4/ip_forward")))); got != "0" {
		t.Errorf("ip_forward is %s", got)
	}
	if text := string(must(os.ReadFile("/proc/self/mountinfo"))); strings.Contains(text, "tenement") {
		t.Errorf("mounts are left:\n%s", text)
	}
	for _, path := range must(filepath.Glob("/proc/[0-9]*")) {
		text, err := os.ReadFile(path + "/status")
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(text), "\nUid:\t")
		uid, _, _ := strings.Cut(rest, "\t")
		if n, err := strconv.Atoi(uid); err != nil || n >= firstUID {
			t.Errorf("a process of user %s is left:\n%s", uid, text)
		}
	}
}
