package runtime

import "tenement"

// socketVariable tells a process where to ask something of us.
const socketVariable = "TENEMENT_SOCKET"

// heed opens where the process of ref is to ask something of us; nil if it is not to, or
// cannot.
func (at place) heed(s Spec, ref tenement.Ref) (w *wishes, err error) {
	if !s.wishes(at.isolation) {
		return nil, nil
	}
	err = at.within(func() (err error) {
		w, err = openWishes(wishesName(ref))
		return err
	})
	return w, err
}

// wishes reports whether the process may ask something of us. A sandbox has sockets of its
// own, of which this kernel knows nothing.
func (s Spec) wishes(isolation tenement.Isolation) bool {
	return s.Heed != nil && s.Service != nil && s.Service.Wake.Self && isolation != tenement.IsolationSandbox
}

// wishesName is the abstract name of the socket, without the leading zero; see notifyName.
func wishesName(ref tenement.Ref) string { return notifyName(ref) + "-ask" }
