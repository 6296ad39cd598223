package vm

import (
	"path/filepath"
	"testing"
	"time"
)

// TestProjectQuotas has the kernel of the machine bound data directories: few file
// systems of machines that test do.
func TestProjectQuotas(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it takes a minute; leave -short away")
	}
	require(t)
	image := machine(t)
	dir := t.TempDir()
	programs := build(t, dir)
	disk := filepath.Join(dir, "root.img")
	command(t, time.Minute, "cp", "--sparse=always", filepath.Join(image, "root.img"), disk)
	life{"TestStorageQuota", "poweroff -ff"}.run(t, image, disk, programs)
}
