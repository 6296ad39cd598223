package config

import (
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"

	"tenement"
)

// kind is what the value of a key must look like.
type kind struct {
	what string // ends the sentence "the value must be …"
	hint string
	read func(n *node, v *value) bool // false: it does not look like that
}

// value is what a kind has read; which field counts depends on the kind.
type value struct {
	*node
	whole  int
	share  float64
	length time.Duration
	flag   bool
}

// longest is the longest duration a file may ask for. Longer ones are slips, and
// it keeps every sum of two far from overflow.
const longest = 365 * 24 * time.Hour

const durationHint = `write a number of seconds, or a text such as "250ms", "10s", "5m" or "1h"`

var (
	anyString  = textKind("a string", "", func(string) bool { return true })
	directory  = textKind("the path of a directory", `such as "/var/lib/tenement"; a leading ~ stands for nothing here`, isDirectory)
	logFile    = textKind(`the path of a file, or "stderr"`, `such as "/var/log/tenement/access.log"`, isDirectory)
	hostName   = textKind("a host name in lower case, without port", "", isHostName)
	domainName = textKind("a host name in lower case, without port", "not an address: services answer at names below it", isDomain)
	hostPort   = textKind("host:port with a port from 0 to 65535", `"127.0.0.1:8080" for this machine only, ":8080" for everyone`, isHostPort)
	network    = textKind("an IP address or a network such as 10.0.0.0/8", "", func(s string) bool { _, ok := readNetwork(s); return ok })
	healthPath = textKind(`a path that begins with "/"`, "", isRequestPath)
	length     = durationKind("a duration from 0 to one year", 0)
	longer     = durationKind("a duration above 0, up to one year", 1)
	boolean    = kind{what: "true or false", read: readBoolean}
	scalar     = kind{what: "a string, a number, true or false", read: isScalar}
	array      = kind{what: "an array of strings", hint: `such as ["one", "two"]`, read: isArray}
	table      = kind{what: "a table", read: isTable}
	recipes    = kind{what: "a table", hint: "write [service.NAME] and below it the keys of that service", read: isTable}
)

func textKind(what, hint string, accepts func(string) bool) kind {
	return kind{what: what, hint: hint, read: func(n *node, _ *value) bool {
		return n.kind == unstable.String && accepts(n.text)
	}}
}

// oneOf is one of a few words.
func oneOf[T ~string](words ...T) kind {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = strconv.Quote(string(word))
	}
	what := quoted[0]
	if last := len(quoted) - 1; last > 0 {
		what = strings.Join(quoted[:last], ", ") + " or " + quoted[last]
	}
	return textKind(what, "", func(s string) bool { return slices.Contains(words, T(s)) })
}

// wholeKind is a whole number from least to most, both included.
func wholeKind(least, most int) kind {
	what := "a whole number from " + strconv.Itoa(least) + " to " + strconv.Itoa(most)
	return kind{what: what, read: func(n *node, v *value) bool {
		if n.kind != unstable.Integer {
			return false
		}
		parsed, err := strconv.ParseInt(n.raw, 0, 64)
		if err != nil || parsed < int64(least) || parsed > int64(most) {
			return false
		}
		v.whole = int(parsed)
		return true
	}}
}

// The first of a million uids: above those of people, of services and of nobody, and
// such that the last one is below 2^31.
const (
	lowestFirstUID  = 1 << 16
	highestFirstUID = 2_146_000_000
)

// uidBlock is such a first uid, or 0.
var uidBlock = kind{
	what: fmt.Sprintf("a whole number from %d to %d, or 0", lowestFirstUID, highestFirstUID),
	hint: "the first of 1,000,000 numbers that no user or group of this machine has; 0 lets the daemon choose",
	read: func(n *node, v *value) bool {
		return wholeKind(0, highestFirstUID).read(n, v) && (v.whole == 0 || v.whole >= lowestFirstUID)
	},
}

// limitKind is a whole number from least to most, or 0 for no limit.
func limitKind(least, most int) kind {
	number := wholeKind(0, most)
	return kind{
		what: fmt.Sprintf("a whole number from %d to %d, or 0 for none", least, most),
		read: func(n *node, v *value) bool {
			return number.read(n, v) && (v.whole == 0 || v.whole >= least)
		},
	}
}

// shareKind is a number from least to most, or 0 for no limit.
func shareKind(least, most float64) kind {
	return kind{
		what: fmt.Sprintf("a number from %v to %v, or 0 for none", least, most),
		hint: "1 is the whole of one core",
		read: func(n *node, v *value) bool {
			if n.kind != unstable.Float && n.kind != unstable.Integer {
				return false
			}
			share, err := strconv.ParseFloat(strings.ReplaceAll(n.raw, "_", ""), 64)
			v.share = share
			return err == nil && (share == 0 || least <= share && share <= most) // and so no NaN
		},
	}
}

// durationKind is a number of seconds or a text with a unit, from least to longest.
func durationKind(what string, least time.Duration) kind {
	return kind{what: what, hint: durationHint, read: func(n *node, v *value) bool {
		parsed, ok := readDuration(n)
		v.length = parsed
		return ok && least <= parsed && parsed <= longest
	}}
}

func readDuration(n *node) (time.Duration, bool) {
	switch n.kind {
	case unstable.String:
		parsed, err := time.ParseDuration(n.text)
		return parsed, err == nil
	case unstable.Integer:
		seconds, err := strconv.ParseInt(n.raw, 0, 64)
		if err != nil || seconds < 0 || seconds > int64(longest/time.Second) {
			return 0, false
		}
		return time.Duration(seconds) * time.Second, true
	case unstable.Float:
		seconds, err := strconv.ParseFloat(strings.ReplaceAll(n.raw, "_", ""), 64)
		// Written so that NaN fails too.
		if err != nil || !(seconds >= 0 && seconds <= longest.Seconds()) {
			return 0, false
		}
		return time.Duration(math.Round(seconds * float64(time.Second))), true
	}
	return 0, false
}

func readBoolean(n *node, v *value) bool {
	v.flag = n.raw == "true"
	return n.kind == unstable.Bool
}

func isTable(n *node, _ *value) bool { return n.kind == unstable.Table }

// isArray leaves the elements to whoever knows what they must be.
func isArray(n *node, _ *value) bool { return n.kind == unstable.Array }

func isScalar(n *node, _ *value) bool {
	switch n.kind {
	case unstable.String, unstable.Bool, unstable.Integer, unstable.Float:
		return true
	}
	return false
}

// maxHostName is the longest name that DNS can carry (RFC 1035 §2.3.4), written
// without its final dot.
const maxHostName = 253

// isHostName accepts DNS labels joined by dots, a single one included.
func isHostName(s string) bool {
	if len(s) > maxHostName {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if tenement.CheckServiceName(label) != nil {
			return false
		}
	}
	return true
}

func isDomain(s string) bool {
	_, err := netip.ParseAddr(s)
	return err != nil && isHostName(s)
}

// isDirectory refuses what would make a directory named "~".
func isDirectory(s string) bool {
	return s != "" && s != "~" && !strings.HasPrefix(s, "~/")
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "" || isHostName(host)
}

// isRequestPath accepts what can stand in a request line as it is (RFC 9112 §3.2.1).
func isRequestPath(s string) bool {
	if !strings.HasPrefix(s, "/") || strings.Contains(s, "#") || strings.ContainsFunc(s, notVisibleASCII) {
		return false
	}
	_, err := url.ParseRequestURI(s)
	return err == nil
}

func notVisibleASCII(r rune) bool { return r <= ' ' || r > '~' }

// shown is the value as a message quotes it.
func (n *node) shown() string {
	switch n.kind {
	case unstable.Table:
		return "a table"
	case unstable.Array:
		return "an array"
	}
	return strings.Map(printable, strings.ReplaceAll(shorten(n.raw), "\n", `\n`))
}

// readNetwork reads a network in CIDR notation, or one address as a network of its own.
func readNetwork(s string) (netip.Prefix, bool) {
	if prefix, err := netip.ParsePrefix(s); err == nil {
		return prefix.Masked(), true
	}
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Prefix{}, false
	}
	addr = addr.Unmap()
	return netip.PrefixFrom(addr, addr.BitLen()), true
}
