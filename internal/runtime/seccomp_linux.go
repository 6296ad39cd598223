package runtime

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	moby "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// filterSyscalls lets the calling thread, and whatever it starts, use the system calls
// that Docker lets a container without capabilities use. It needs no_new_privs.
func filterSyscalls() error {
	filter, err := syscallFilter()
	if err != nil {
		return err
	}
	const setModeFilter = 1 // SECCOMP_SET_MODE_FILTER, linux/seccomp.h
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, 0, uintptr(unsafe.Pointer(&program))); errno != 0 {
		return fmt.Errorf("install the filter of system calls: %w", errno)
	}
	return nil
}

// What a filter says (seccomp(2)).
const (
	allowed     = bpfReturn(0x7fff0000)                       // SECCOMP_RET_ALLOW
	refused     = bpfReturn(0x00050000 | uint32(unix.EPERM))  // SECCOMP_RET_ERRNO
	unknownCall = bpfReturn(0x00050000 | uint32(unix.ENOSYS)) // what is newer than the profile is done the old way then
	wrongABI    = bpfReturn(0x00050000 | uint32(unix.ENOSYS)) // of 32 bits, or x32
	x32Bit      = 0x40000000                                  // __X32_SYSCALL_BIT, asm/unistd.h
)

type bpfReturn uint32

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	numberAt = 0
	abiAt    = 4
	argsAt   = 16
)

// syscallFilter is a search tree: a chain of comparisons, as assemblers of filters make
// them, costs each start half a millisecond, because the kernel tries it with every
// system call there is (seccomp_cache_prepare() in kernel/seccomp.c).
var syscallFilter = sync.OnceValues(func() ([]unix.SockFilter, error) {
	machine, err := arch.GetInfo(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	rules, err := syscallRules(machine)
	if err != nil {
		return nil, err
	}
	program := slices.Concat([]bpf.Instruction{
		bpf.LoadAbsolute{Off: abiAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(machine.ID), SkipTrue: 1},
		wrongABI.instruction(),
		bpf.LoadAbsolute{Off: numberAt, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1},
		wrongABI.instruction(),
	}, search(rules))
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble the filter of system calls: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return filter, nil
})

func (r bpfReturn) instruction() bpf.Instruction { return bpf.RetConstant{Val: uint32(r)} }

// syscallRule is about the system calls from a number on.
type syscallRule struct {
	from       int
	verdict    bpfReturn
	conditions []specs.LinuxSeccompArg // one of which must hold for the verdict, unless there is none
	withheld   []uint32                // refused as a second argument, of which the kernel takes 32 bits
}

func (r syscallRule) same(other syscallRule) bool {
	return r.verdict == other.verdict && r.plain() && other.plain()
}

func (r syscallRule) plain() bool { return len(r.conditions) == 0 && len(r.withheld) == 0 }

// The requests of ioctl(2) by which the owner of a file takes it out of its project,
// and so out of the storage quota (decision 18).
const (
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR, linux/fs.h: the project of a file
	setFlags      = 0x40086602 // FS_IOC_SETFLAGS: whether new files of a directory inherit its project
)

// syscallRules is the profile by number, without gaps. It refuses clone3(2), whose flags
// no filter can see, for the sake of user namespaces; these the kernel refuses a tenant
// anyway (see template), so that it is allowed here and programs need no detour.
func syscallRules(machine *arch.Info) ([]syscallRule, error) {
	nothing := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
	profile, err := moby.GetDefaultProfile(nothing)
	if err != nil {
		return nil, fmt.Errorf("read the profile of system calls: %w", err)
	}
	newest := slices.Max(slices.Collect(maps.Keys(machine.SyscallNumbers)))
	byNumber := make([]syscallRule, newest+2)
	for number := range byNumber {
		byNumber[number] = syscallRule{from: number, verdict: refused}
	}
	byNumber[newest+1].verdict = unknownCall
	for _, rule := range profile.Syscalls {
		if rule.Action != specs.ActAllow {
			continue
		}
		if err := checkConditions(rule.Args); err != nil {
			return nil, err
		}
		for _, name := range rule.Names {
			number, known := machine.SyscallNames[name]
			if !known {
				continue
			}
			r := &byNumber[number]
			if r.verdict == allowed && len(r.conditions) == 0 {
				continue
			}
			r.verdict = allowed
			if r.conditions = append(r.conditions, rule.Args...); len(rule.Args) == 0 {
				r.conditions = nil
			}
		}
	}
	byNumber[machine.SyscallNames["clone3"]] = syscallRule{from: machine.SyscallNames["clone3"], verdict: allowed}
	byNumber[machine.SyscallNames["ioctl"]].withheld = []uint32{setAttributes, setFlags}
	return slices.CompactFunc(byNumber, syscallRule.same), nil
}

// checkConditions accepts what condition can translate.
func checkConditions(args []specs.LinuxSeccompArg) error {
	for _, arg := range args {
		switch known := arg.Op == specs.OpEqualTo || arg.Op == specs.OpLessThan || arg.Op == specs.OpMaskedEqual && arg.ValueTwo == 0; {
		case !known, len(args) > 1, arg.Value > 1<<32-1:
			return errors.New("the profile of system calls has a condition that is not understood")
		}
	}
	return nil
}

// search finds the rule for the number that was loaded.
func search(rules []syscallRule) []bpf.Instruction {
	if len(rules) == 1 {
		return rules[0].instructions()
	}
	middle := len(rules) / 2
	below, above := search(rules[:middle]), search(rules[middle:])
	return slices.Concat([]bpf.Instruction{
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: uint32(rules[middle].from), SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(below))},
	}, below, above)
}

func (r syscallRule) instructions() []bpf.Instruction {
	var list []bpf.Instruction
	if len(r.withheld) > 0 {
		list = append(list, bpf.LoadAbsolute{Off: argsAt + 8, Size: 4}) // the lower half of a little-endian machine
	}
	for _, value := range r.withheld {
		list = append(list, bpf.JumpIf{Cond: bpf.JumpEqual, Val: value, SkipFalse: 1}, refused.instruction())
	}
	if len(r.conditions) == 0 {
		return append(list, r.verdict.instruction())
	}
	for _, c := range r.conditions {
		list = append(list, condition(c, r.verdict)...)
	}
	return append(list, refused.instruction())
}

// condition returns the verdict if c holds of an argument, of which only 32 bits may be
// set, and goes on if not.
func condition(c specs.LinuxSeccompArg, verdict bpfReturn) []bpf.Instruction {
	test := map[specs.LinuxSeccompOperator]bpf.JumpTest{
		specs.OpEqualTo: bpf.JumpEqual, specs.OpLessThan: bpf.JumpLessThan, specs.OpMaskedEqual: bpf.JumpBitsNotSet,
	}[c.Op]
	low := uint32(argsAt + 8*c.Index) // of a little-endian machine
	if c.Op == specs.OpMaskedEqual {  // flags: the upper bits are not looked at
		return []bpf.Instruction{
			bpf.LoadAbsolute{Off: low, Size: 4},
			bpf.JumpIf{Cond: test, Val: uint32(c.Value), SkipFalse: 1},
			verdict.instruction(),
		}
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: low + 4, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipFalse: 3},
		bpf.LoadAbsolute{Off: low, Size: 4},
		bpf.JumpIf{Cond: test, Val: uint32(c.Value), SkipFalse: 1},
		verdict.instruction(),
	}
}
