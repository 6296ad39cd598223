package runtime

import (
	"debug/buildinfo"
	"fmt"
	"os/exec"

	"tenement"
)

// RunscVersion is the gVisor that sandboxes are made with, and no other: what is said on
// its control socket is no stable interface. tools/runsc.sh reads it here.
const RunscVersion = "v0.0.0-20260905035102-160fafc42237"

// RunscPlatform is how its sandboxes see the system calls of programs: in a way that needs
// nothing of the machine, no virtualisation either.
const RunscPlatform = "systrap"

const runscPackage = "gvisor.dev/gvisor/runsc"

// RunscInstall is the command that puts it where the daemon looks for it.
const RunscInstall = "CGO_ENABLED=0 GOBIN=/usr/local/bin go install " + runscPackage + "@" + RunscVersion

// FindRunsc looks for runsc in the directories of PATH. CodeUnavailable, with the way to
// get it: it is not there, or it is another version.
func FindRunsc() (string, error) {
	path, err := exec.LookPath("runsc")
	if err == nil {
		err = checkRunsc(path)
	}
	if err != nil {
		return "", &tenement.Error{
			Code: tenement.CodeUnavailable, Op: "find runsc", Err: err,
			Hint: "install it with: " + RunscInstall,
		}
	}
	return path, nil
}

// checkRunsc reads the version that the Go tool has left in the program, which says
// nothing about itself if asked.
func checkRunsc(path string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	if info.Path != runscPackage || info.Main.Version != RunscVersion {
		return fmt.Errorf("%s is %s %s and not %s %s", path, info.Path, info.Main.Version, runscPackage, RunscVersion)
	}
	return nil
}
