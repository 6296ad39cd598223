package network

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"syscall"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// deletedTable is the type of the message that says so (linux/netfilter/nfnetlink.h).
const deletedTable = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELTABLE

// watch puts the rules in force again when somebody takes them away, until ctx ends: to
// reload its own, Debian's nftables.service flushes everybody's. Without them, tenants
// would reach services of the machine.
func (r *ruleset) watch(ctx context.Context, log *slog.Logger) error {
	events, err := subscribe()
	if err != nil {
		return noNftables(err)
	}
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { _ = events.Close() })
	defer stop()
	buffer := make([]byte, 64<<10)
	for {
		length, err := events.Read(buffer)
		if ctx.Err() != nil {
			return nil
		}
		lost := errors.Is(err, unix.ENOBUFS) // what, we cannot know (netlink(7))
		if err != nil && !lost {
			return err
		}
		if !lost && !deletesTable(buffer[:length]) {
			continue
		}
		if restored, err := r.restore(); err != nil {
			log.Error("the rules for tenants' packets are gone and cannot be put back", "error", err)
		} else if restored {
			log.Warn("somebody removed the rules for tenants' packets; they are back")
		}
	}
}

// subscribe hears of all changes to nftables.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	address := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}
	if err := unix.Bind(fd, address); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "nftables events"), nil
}

// deletesTable looks for it in messages that are each padded to four bytes (netlink(7)).
func deletesTable(messages []byte) bool {
	for len(messages) >= syscall.NLMSG_HDRLEN {
		length := binary.NativeEndian.Uint32(messages)
		if binary.NativeEndian.Uint16(messages[4:]) == deletedTable {
			return true
		}
		length = (length + 3) &^ 3
		if length < syscall.NLMSG_HDRLEN || int(length) > len(messages) {
			return false
		}
		messages = messages[length:]
	}
	return false
}

// restore puts the rules back if they were in force and are gone.
func (r *ruleset) restore() (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.installed {
		return false, nil
	}
	var conn nftables.Conn
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, err
	}
	for _, table := range tables {
		if table.Name == tablePrefix+r.options.Name {
			return false, nil
		}
	}
	return true, r.replace(r.guard)
}
