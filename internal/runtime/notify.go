package runtime

import (
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"

	"tenement"
)

// notifyVariable tells a process where to send what it says of itself (sd_notify(3)).
const notifyVariable = "NOTIFY_SOCKET"

// hear opens where the process of ref is to say how it does; nil if it is not to.
func (at place) hear(s Spec, ref tenement.Ref) (n *notices, err error) {
	if !s.notifies() {
		return nil, nil
	}
	err = at.within(func() (err error) {
		n, err = openNotices(notifyName(ref))
		return err
	})
	return n, err
}

// notifyName is the abstract name of the socket, without the leading zero. A later daemon
// finds it by the same thing that is unlike every other life's: the names of the FIFOs.
func notifyName(ref tenement.Ref) string {
	sum := sha256.Sum256([]byte(ref.Stdout))
	return "tenement-" + hex.EncodeToString(sum[:16])
}

// maxExtend bounds what one message can ask for.
const maxExtend = 24 * time.Hour

// parseNotice reads what is known of a message: lines of NAME=VALUE. False: nothing is.
func parseNotice(message string) (n Notice, ok bool) {
	for line := range strings.Lines(message) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch name {
		case "READY":
			n.Ready = value == "1"
		case "STOPPING":
			n.Stopping = value == "1"
		case "EXTEND_TIMEOUT_USEC":
			if micros, err := strconv.ParseUint(value, 10, 64); err == nil {
				n.Extend = time.Duration(min(micros, math.MaxInt64/1000)) * time.Microsecond
				n.Extend = min(n.Extend, maxExtend)
			}
		}
	}
	return n, n != Notice{}
}
