// Package rootless gives an ordinary user's daemon namespaces in which it may do what
// isolating tenants takes: a user namespace that has its user for root and the user's
// subordinate ids (subuid(5)) for tenants, and a pid namespace with a /proc of its own.
//
// A keeper holds them. It is one process for each data directory, the first of the pid
// namespace, and outlives the daemon as tenants do.
package rootless

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"tenement"
)

// keeperVariable names, to a daemon that is inside, the process that keeps its namespaces.
const keeperVariable = "TENEMENT_KEEPER"

// Inside says whether this process was started by [Enter].
func Inside() bool { return os.Getenv(keeperVariable) != "" }

// Range are ids that follow one another.
type Range struct{ First, Count int }

const enterOp = "make a user namespace"

// unavailable is about something that is missing; do says what would help.
func unavailable(err error, do string) error {
	return &tenement.Error{
		Code: tenement.CodeUnavailable, Op: enterOp, Err: err,
		Hint: do + `; or run the daemon as root, or set isolation = "process"`,
	}
}

// Files with the ids that users may give to others.
const (
	subUIDs = "/etc/subuid"
	subGIDs = "/etc/subgid"
)

// leastIDs is how many a user is given as a rule, and what one is told to ask for.
const leastIDs = 1 << 16

// subordinate is the largest range that a file like subuid(5) gives a user.
func subordinate(path, name string, uid int) (Range, error) {
	file, err := os.Open(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Range{}, err
	}
	var best Range
	if err == nil {
		defer file.Close()
		if best, err = largest(file, name, uid); err != nil {
			return Range{}, fmt.Errorf("%s: %w", path, err)
		}
	}
	if best.Count == 0 {
		return Range{}, unavailable(fmt.Errorf("%s gives %s no ids for tenants", path, name),
			fmt.Sprintf("as root: usermod --add-subuids 100000-%d --add-subgids 100000-%d %s", 100_000+leastIDs-1, 100_000+leastIDs-1, name))
	}
	return best, nil
}

// largest reads lines such as alice:100000:65536.
func largest(text io.Reader, name string, uid int) (best Range, err error) {
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		fields := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(fields) != 3 || fields[0] != name && fields[0] != strconv.Itoa(uid) {
			continue
		}
		first, err := strconv.Atoi(fields[1])
		if err != nil {
			return Range{}, err
		}
		count, err := strconv.Atoi(fields[2])
		if err != nil {
			return Range{}, err
		}
		if count > best.Count {
			best = Range{first, count}
		}
	}
	return best, lines.Err()
}
