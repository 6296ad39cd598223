//go:build !linux

package disk

import (
	"errors"
	"os"
)

const openQuietly = os.O_RDONLY

var errNoProjects = errors.New("project quotas are of Linux")

func (q quotaFS) enforces() (bool, error)        { return false, nil }
func (q quotaFS) setLimit(int, Limit) error      { return errNoProjects }
func (q quotaFS) record(int) (Use, Limit, error) { return Use{}, Limit{}, errNoProjects }
func projectOf(*os.File) (int, error)            { return 0, errNoProjects }
func setProject(_ *os.File, _ int, _ bool) error { return errNoProjects }
