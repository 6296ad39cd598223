//go:build !faults

package fault

// Enabled says whether this program was built to crash on request.
const Enabled = false

// Point does nothing in this build.
func Point(Name) {}
