package api

import (
	"crypto/sha256"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"tenement"
)

func TestToken(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^ten_[0-9A-Za-z]{49}$`)
	seen := map[string]bool{}
	for range 1000 {
		secret, hash := NewToken()
		if !form.MatchString(secret) || seen[secret] {
			t.Fatalf("secret %q", secret)
		}
		seen[secret] = true
		if hash != sha256.Sum256([]byte(secret)) {
			t.Fatalf("the hash of %q is not its SHA-256", secret)
		}
		if parsed, err := ParseToken(secret); err != nil || parsed != hash {
			t.Fatalf("ParseToken(%q): %v", secret, err)
		}
	}
}

func TestParseTokenRefuses(t *testing.T) {
	t.Parallel()
	secret, _ := NewToken()
	wrong := []string{"", "ten_", secret + "0", secret[1:], secret[:len(secret)-1], " " + secret, secret + "\n", "TEN_" + secret[4:]}
	for i := range secret {
		other := byte('x')
		if secret[i] == other {
			other = 'y'
		}
		wrong = append(wrong, secret[:i]+string(other)+secret[i+1:])
	}
	for _, s := range wrong {
		if _, err := ParseToken(s); tenement.CodeOf(err) != tenement.CodeUnauthenticated {
			t.Errorf("ParseToken(%q): %v", s, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	secret, _ := NewToken()
	f.Add(secret)
	f.Add("ten_")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := ParseToken(s); (err == nil) != (len(s) == len(secret) && s[:4] == "ten_" && checksum(s[:47]) == s[47:]) {
			t.Errorf("ParseToken(%q): %v", s, err)
		}
	})
}

func TestFailuresAreForgottenAndBounded(t *testing.T) {
	t.Parallel()
	var f failures
	now := time.Unix(0, 0)
	for range failuresAllowed {
		if wait := f.add("192.0.2.1", now); wait != 0 {
			t.Fatalf("to wait %v", wait)
		}
	}
	if wait := f.add("192.0.2.1", now.Add(time.Second)); wait != failureWindow-time.Second {
		t.Errorf("to wait %v", wait)
	}
	if wait := f.add("192.0.2.2", now); wait != 0 {
		t.Errorf("another address has to wait %v", wait)
	}
	if wait := f.add("192.0.2.1", now.Add(failureWindow)); wait != 0 {
		t.Errorf("after the window: to wait %v", wait)
	}
	for i := range 3 * failureRows {
		f.add("10.0."+strconv.Itoa(i>>8)+"."+strconv.Itoa(i&255), now)
	}
	if len(f.rows) > failureRows {
		t.Errorf("%d rows", len(f.rows))
	}
}

func TestClientOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"192.0.2.1:80":           "192.0.2.1/32",
		"[::ffff:192.0.2.1]:80":  "192.0.2.1/32",
		"[2001:db8:1:2:3::1]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80":      "fe80::/64",
	} {
		if got := clientOf(clientAddress(addr)); got != netip.MustParsePrefix(want) {
			t.Errorf("clientOf(%q) = %v, want %s", addr, got, want)
		}
	}
	if got := clientOf(clientAddress("@")); got.IsValid() {
		t.Errorf("a socket's peer is %v", got)
	}
}
