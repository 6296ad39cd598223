package disk

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"tenement"
)

// openQuietly opens a tenant's file without waiting for anything and without a trace.
const openQuietly = os.O_RDONLY | unix.O_NONBLOCK | unix.O_NOFOLLOW | unix.O_NOCTTY

// From linux/quota.h and linux/dqblk_xfs.h. ext4 and XFS know both families of calls.
const (
	getQuota        = 0x800007 // Q_GETQUOTA
	setQuota        = 0x800008 // Q_SETQUOTA
	getState        = 'X'<<8 + 8
	projectQuota    = 2
	quotaLimits     = 1<<0 | 1<<2 // QIF_BLIMITS, QIF_ILIMITS
	projectEnforced = 1 << 5      // FS_QUOTA_PDQ_ENFD
	quotaBlock      = 1024        // QIF_DQBLKSIZE, the unit of space limits
	stateVersion    = 1           // FS_QSTATV_VERSION1
)

// quotaRecord is struct if_dqblk.
type quotaRecord struct {
	blockHard, blockSoft, space uint64 // space in bytes, limits in blocks
	fileHard, fileSoft, files   uint64
	blockTime, fileTime         uint64
	valid                       uint32
	_                           uint32
}

// quotaState is struct fs_quota_statv.
type quotaState struct {
	version int8
	_       uint8
	flags   uint16
	_       [156]byte
}

// call is quotactl_fd(2), of Linux 5.14. It needs no device, and so no search for one.
func (q quotaFS) call(command, id int, address unsafe.Pointer) error {
	_, _, number := unix.Syscall6(unix.SYS_QUOTACTL_FD, q.dir.Fd(), uintptr(command<<8|projectQuota), uintptr(id), uintptr(address), 0, 0)
	if number != 0 {
		return os.NewSyscallError("quotactl_fd", number)
	}
	return nil
}

// enforces reports whether the file system keeps limits of projects: it has the feature,
// and is mounted with prjquota. Anybody may ask.
func (q quotaFS) enforces() (bool, error) {
	state := quotaState{version: stateVersion}
	err := q.call(getState, 0, unsafe.Pointer(&state))
	for _, absent := range []error{syscall.ENOSYS, syscall.EOPNOTSUPP, syscall.ESRCH, syscall.EINVAL} {
		if errors.Is(err, absent) {
			return false, nil
		}
	}
	return state.flags&projectEnforced != 0, err
}

// setLimit sets the hard limits of a project; zeros take them away.
func (q quotaFS) setLimit(id int, l Limit) error {
	record := quotaRecord{valid: quotaLimits, blockHard: uint64(l.Bytes) / quotaBlock, fileHard: uint64(l.Files)}
	return q.call(setQuota, id, unsafe.Pointer(&record))
}

// record is what the kernel counts for a project, and its limit.
func (q quotaFS) record(id int) (Use, Limit, error) {
	var r quotaRecord
	err := q.call(getQuota, id, unsafe.Pointer(&r))
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ESRCH) { // XFS: nothing has counted for it yet
		err = nil
	}
	if err != nil {
		return Use{}, Limit{}, err
	}
	return Use{Bytes: tenement.Bytes(r.space), Files: int(r.files)},
		Limit{Bytes: tenement.Bytes(r.blockHard * quotaBlock), Files: int(r.fileHard)}, nil
}

// attributes is struct fsxattr (ioctl_fsxattr in linux/fs.h).
type attributes struct {
	flags, extentSize, extents, project, copySize uint32
	_                                             [8]byte
}

const (
	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritFlag   = 0x200      // FS_XFLAG_PROJINHERIT
)

func (a *attributes) call(file *os.File, request uintptr) error {
	_, _, number := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request, uintptr(unsafe.Pointer(a)))
	if number != 0 {
		return os.NewSyscallError("ioctl", number)
	}
	return nil
}

// projectOf is the project that a directory and what will be made in it count for; 0 if
// what will be made in it does not.
func projectOf(dir *os.File) (int, error) {
	var a attributes
	if err := a.call(dir, getAttributes); err != nil {
		return 0, err
	}
	if a.flags&inheritFlag == 0 {
		return 0, nil
	}
	return int(a.project), nil
}

// setProject makes a file, or a directory with what will be made in it, count for a project.
func setProject(file *os.File, id int, isDir bool) error {
	var a attributes
	if err := a.call(file, getAttributes); err != nil {
		return err
	}
	a.project = uint32(id)
	if isDir {
		a.flags |= inheritFlag
	}
	return a.call(file, setAttributes)
}
